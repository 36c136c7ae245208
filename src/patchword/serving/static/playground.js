// The playground: a picture, class names, and at once what the model sees of them.

import {Chips} from './chips.js';
import {ask, byId, copy, later, make, Refused, save} from './common.js';
import {Legend} from './legend.js';
import {NO_CLASS, painted, rgb, runLengths, shares, tally, thresholded} from './masks.js';
import {decode, encode} from './png.js';
import {shrunk} from './shrink.js';
import {Stage} from './stage.js';
import {FIRST, fromHash, python, settingsOf, toHash} from './state.js';

const TRIES = 5; // of a request that the server is too busy for

/** @type {import('./state.js').View} */
let view = {...FIRST};
let server = {models: [], examples: []};
let picture = null; // {file, name, id}: id once the server has it
let results = []; // of the picture: of the model, and of the one that it is compared with
let turn = new AbortController(); // the newest run; an older one is of no more use
let busy = false;
let opening = 0; // number of the newest picture, which an older one that comes late must not replace

const classes = new Chips(byId('classes'), entries => change({classes: entries}));
const background = new Chips(byId('background'), entries => change({background: entries}));
const stage = new Stage(byId('stage'), {pointed: showPointed, divided: divider => { view.divider = divider; remember(); }});
const legend = new Legend(byId('legend'), {
  recolour: (name, colour) => redraw({colours: {...view.colours, [name]: colour}}),
  only: name => redraw({only: view.only === name ? '' : name}),
  hide: name => redraw({hidden: view.hidden.includes(name) ? view.hidden.filter(each => each !== name) : [...view.hidden, name]}),
});
const remember = later(() => history.replaceState(null, '', `#${toHash(view)}`), 200);

/** What a person chose and the server has to answer. */
function change(part) {
  redraw(part);
  run();
}

/** What a person chose and the page can show alone. */
function redraw(part) {
  view = {...view, ...part};
  remember();
  draw();
}

/** Take a picture that is not known to the server yet. */
async function open(file, example = '') {
  if (!file) return;
  const mine = ++opening;
  turn.abort();
  const address = URL.createObjectURL(file);
  results = [];
  busy = true;
  byId('stage').ariaBusy = 'true';
  redraw({example});
  byId('stage').hidden = false;
  byId('empty').hidden = true;
  try {
    await stage.open(address, `Picture ${file.name}`);
  } catch {
    if (mine !== opening) return;
    picture = null;
    busy = false;
    byId('stage').hidden = true;
    byId('empty').hidden = false;
    return complain(`This browser cannot show ${file.name}. JPEG, PNG and WebP work everywhere.`);
  }
  if (mine !== opening) return;
  byId('shrunk').hidden = true;
  let sent;
  try {
    sent = await shrunk(stage.photograph, file, server.limits);
  } catch (error) {
    if (mine !== opening) return;
    picture = null;
    busy = false;
    draw();
    return complain(error.message);
  }
  if (mine !== opening) return;
  picture = {file: sent.file, name: file.name, id: ''};
  if (sent.size) {
    byId('shrunk').textContent = `Larger than this server takes: made smaller here, to ${sent.size.width} × ${sent.size.height} pixels. Results are of the smaller picture.`;
    byId('shrunk').hidden = false;
  }
  draw();
  run();
}

async function openExample(id) {
  const example = server.examples.find(each => each.id === id);
  if (!example) return;
  const mine = ++opening;
  try {
    const blob = await (await ask(example.url)).blob();
    if (mine === opening) await open(new File([blob], example.url.split('/').at(-1), {type: blob.type}), id);
  } catch (error) {
    complain(error.message);
  }
}

/** Segment the picture by the words, with every model that is shown. */
async function run() {
  turn.abort();
  turn = new AbortController();
  const {signal} = turn;
  busy = Boolean(picture && view.classes.length);
  if (!busy) {
    results = [];
    say('');
    return draw();
  }
  byId('stage').ariaBusy = 'true';
  say('Looking…');
  try {
    const began = performance.now();
    const answers = [];
    for (const model of [view.model, view.compare].filter(Boolean)) answers.push(await patiently(() => segment(model, signal), signal));
    const found = await Promise.all(answers.map(decoded));
    if (signal.aborted) return;
    results = found;
    complain('');
    say(`${Math.round(performance.now() - began)} ms${found.some(each => each.encoded) ? '' : ', features kept'}`);
  } catch (error) {
    if (signal.aborted) return;
    results = [];
    complain(error.message);
    say('');
  }
  busy = false;
  draw();
}

async function segment(model, signal) {
  for (let fresh = false; ; fresh = true) {
    if (!picture.id) await upload(signal);
    try {
      const json = {model, classes: view.classes, background: view.background, settings: settingsOf(view)};
      return await (await ask(`/v1/images/${picture.id}/segment`, {json, signal})).json();
    } catch (error) {
      if (error.status !== 404 || fresh) throw error;
      picture.id = ''; // the server has forgotten the picture
    }
  }
}

async function upload(signal) {
  const body = new FormData();
  body.append('file', picture.file, picture.name);
  picture.id = (await (await ask('/v1/images', {method: 'POST', body, signal})).json()).image;
}

/** Ask again, as often as is decent, where the server says when. */
async function patiently(request, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await request();
    } catch (error) {
      if (!(error instanceof Refused) || !error.wait || attempt === TRIES) throw error;
      say(`The server is busy. Trying again in ${error.wait} s.`);
      await new Promise(done => setTimeout(done, 1000 * error.wait));
      signal.throwIfAborted();
    }
  }
}

/** @returns {Promise<import('./masks.js').Result & {encoded: boolean}>} */
async function decoded(answer) {
  const [labels, confidence] = await Promise.all([answer.labels, answer.confidence].map(async text =>
    (await decode(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)))).values));
  const none = labels instanceof Uint16Array ? 65535 : 255;
  return {...answer, labels, confidence, none, tally: tally(labels, confidence, answer.classes.length)};
}

const colourOf = each => view.colours[each.name] ?? each.colour;

/** The classes of a result as they are shown. */
function looks(result) {
  const only = result.classes.some(({name}) => name === view.only) ? view.only : '';
  return result.classes.map(each => ({
    name: each.name, colour: colourOf(each), hidden: view.hidden.includes(each.name), only: each.name === only,
    shown: only ? each.name === only : !view.hidden.includes(each.name),
  }));
}

const paintOf = result => {
  const found = looks(result);
  return {colours: found.map(each => each.colour), shown: found.map(each => each.shown), opacity: view.opacity, threshold: view.threshold};
};

let drawing = 0;
function draw() {
  cancelAnimationFrame(drawing);
  drawing = requestAnimationFrame(drawNow);
}

function drawNow() {
  const there = results.length > 0;
  for (const name of ['opacity', 'threshold']) {
    byId(name).value = view[name];
    byId(`${name}-said`).textContent = view[name].toFixed(2);
  }
  for (const name of ['model', 'compare', 'refine']) byId(name).value = view[name];
  for (const each of byId('examples').querySelectorAll('button')) each.ariaPressed = String(each.dataset.id === view.example);
  const known = Object.fromEntries(results[0]?.classes.map(each => [each.name, colourOf(each)]) ?? []);
  classes.show(view.classes, known);
  background.show(view.background);
  stage.paint(results, results.map(paintOf), view.divider);
  ['left', 'right'].forEach((side, at) => {
    byId(side).hidden = results.length < 2;
    byId(side).textContent = titleOf([view.model, view.compare][at]);
  });
  byId('stage').ariaBusy = String(busy);
  byId('take-title').textContent = `4. Take ${results.length > 1 ? 'the left result' : 'it'} along`;
  byId('hint').hidden = there;
  byId('hint').textContent = hint();
  byId('legend').hidden = !there;
  byId('absent').hidden = true;
  for (const button of byId('take').querySelectorAll('[id^=save]')) button.disabled = !there;
  if (there) drawLegend();
  byId('python').textContent = python(view, {address: location.origin, file: picture?.name ?? 'picture.jpg', first: server.models[0]?.id ?? ''});
}

function hint() {
  if (!picture) return view.classes.length ? 'Choose a picture to begin.' : 'Choose a picture and type a class name.';
  return busy ? 'Looking at the picture…' : view.classes.length ? '' : 'Type a class name.';
}

function drawLegend() {
  const measured = results.map(result => shares(result, view.threshold));
  const [first] = results;
  const there = at => results.some(({classes: found}) => found[at].share);
  const order = [...first.classes.keys()].filter(there).sort((a, b) => first.classes[b].share - first.classes[a].share);
  const absent = first.classes.filter((_, at) => !there(at)).map(each => each.name);
  byId('absent').textContent = `Not found: ${absent.join(', ')}`;
  byId('absent').hidden = !absent.length;
  const rows = looks(first);
  legend.show(order.map(at => rows[at]), results.map((result, at) => ({
    of: new Map(result.classes.map((each, index) => [each.name, measured[at].classes[index]])), none: measured[at].none,
  })));
}

/** @param {import('./stage.js').Pointed | null} pointed */
function showPointed(pointed) {
  const tip = byId('tip');
  tip.hidden = !pointed;
  legend.point(pointed?.found?.name);
  if (!pointed) return;
  const {found, score, x, y, byKey} = pointed;
  const told = `${found?.name ?? 'no class'} ${score.toFixed(2)}`;
  const swatch = make('i', {class: found ? 'swatch' : 'swatch hatched'});
  if (found) swatch.style.background = colourOf(found);
  tip.replaceChildren(swatch, told);
  tip.style.left = `${100 * x}%`;
  tip.style.top = `${100 * y}%`;
  tip.classList.toggle('flip', x > 0.6);
  tip.classList.toggle('below', y < 0.15);
  if (byKey) byId('pointed').textContent = told;
}

const say = text => { byId('status').textContent = text; };

function complain(reason) {
  byId('problem').textContent = reason;
  byId('problem').hidden = !reason;
}

const titleOf = id => server.models.find(each => each.id === id)?.name ?? '';
const stem = () => picture.name.replace(/\.[^.]*$/, '');

async function saveMask() {
  const [result] = results;
  const palette = result.none === 255 ? Array.from({length: 256}, (_, at) => at < result.classes.length ? rgb(colourOf(result.classes[at])) : NO_CLASS) : undefined;
  save(new Blob([await encode({...result, values: thresholded(result, view.threshold), palette})], {type: 'image/png'}), `${stem()}.mask.png`);
}

function saveOverlay() {
  const [result] = results;
  const {width, height, pixels} = painted(result, paintOf(result));
  const [whole, layer] = [make('canvas', {width, height}), make('canvas', {width, height})];
  layer.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
  const pen = whole.getContext('2d');
  pen.drawImage(stage.photograph, 0, 0, width, height);
  pen.drawImage(layer, 0, 0);
  whole.toBlob(blob => save(blob, `${stem()}.overlay.png`));
}

function saveJson() {
  const [result] = results;
  const {width, height} = result;
  const labels = thresholded(result, view.threshold);
  const measured = shares(result, view.threshold);
  const found = {
    image: picture.name, width, height, model: view.model, threshold: view.threshold, settings: settingsOf(view), background: view.background,
    classes: result.classes.map(({name, words}, index) => ({name, words, ...measured.classes[index], rle: runLengths(labels, {width, height, index})})),
    no_class: measured.none,
  };
  save(new Blob([JSON.stringify(found)], {type: 'application/json'}), `${stem()}.json`);
}

/** The view that an address describes; for what it leaves out, the model's own class list. */
function fromAddress() {
  const told = fromHash(location.hash);
  const known = id => server.models.find(each => each.id === id);
  const model = known(told.model) ?? server.models[0];
  const own = {classes: model.classes.map(each => each.words.join('; ')), background: model.background ?? []};
  const compare = told.compare !== model.id && known(told.compare) ? told.compare : '';
  return {...FIRST, ...own, ...told, model: model.id, compare};
}

function listen() {
  for (const id of ['file', 'camera']) byId(id).addEventListener('change', ({target}) => {
    open(target.files[0]);
    target.value = ''; // the same file again is a change too
  });
  for (const name of ['opacity', 'threshold']) byId(name).addEventListener('input', ({target}) => redraw({[name]: Number(target.value)}));
  for (const name of ['refine', 'compare']) byId(name).addEventListener('change', ({target}) => change({[name]: target.value}));
  byId('model').addEventListener('change', ({target}) => change({model: target.value, compare: view.compare === target.value ? '' : view.compare}));
  byId('save-mask').addEventListener('click', saveMask);
  byId('save-overlay').addEventListener('click', saveOverlay);
  byId('save-json').addEventListener('click', saveJson);
  byId('copy-link').addEventListener('click', () => copy(`${location.origin}${location.pathname}#${toHash(view)}`, byId('copy-link').lastElementChild));
  byId('copy-python').addEventListener('click', () => copy(byId('python').textContent, byId('copy-python').lastElementChild));
  document.addEventListener('paste', event => {
    const [file] = event.clipboardData.files;
    if (file) open(file);
  });
  document.addEventListener('dragover', event => {
    event.preventDefault();
    document.body.classList.add('dropping');
  });
  document.addEventListener('dragleave', event => { if (!event.relatedTarget) document.body.classList.remove('dropping'); });
  document.addEventListener('drop', event => {
    event.preventDefault();
    document.body.classList.remove('dropping');
    open(event.dataTransfer.files[0]);
  });
  addEventListener('hashchange', async () => {
    const before = view.example;
    view = fromAddress();
    draw();
    if (view.example && view.example !== before) await openExample(view.example);
    else run();
  });
}

async function start() {
  listen();
  try {
    server = await (await ask('/v1/models')).json();
  } catch (error) {
    return complain(error.message);
  }
  const option = ({id, name}) => make('option', {value: id, text: name});
  byId('model').replaceChildren(...server.models.map(option));
  byId('compare').replaceChildren(make('option', {value: '', text: 'nothing'}), ...server.models.map(option));
  byId('models').hidden = server.models.length < 2;
  view = fromAddress();
  draw();
  byId('examples').hidden = !server.examples.length;
  for (const {id, url, title} of server.examples) {
    const image = make('img', {alt: ''});
    ask(url).then(answer => answer.blob()).then(blob => { image.src = URL.createObjectURL(blob); });
    byId('examples').append(make('button', {type: 'button', 'data-id': id, 'aria-label': title, title, click: () => openExample(id)}, image));
  }
  await openExample(view.example || server.examples[0]?.id);
}

start();

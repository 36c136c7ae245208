// The review: which photograph, which mask, and what is decided about it. Every decision is saved before it is shown.

import {ask, byId, make} from './common.js';
import {rgb} from './masks.js';
import {Stage} from './review_stage.js';
import {bitmapOf, encode, runsOf} from './rle.js';
import {showTraining} from './review_train.js';

const PAGE = 100, LOOK = 5000; // photographs of a list at a time; milliseconds between looks at what others decide
const path = name => name.split('/').map(encodeURIComponent).join('/');
const TOOLS = {s: 'select', a: 'point', x: 'box', b: 'brush', e: 'erase'};
const KEYS = [
  ['J, K', 'next photograph, the one before'], ['D', 'done, and on to the next'], ['N, P', 'next mask, the one before'],
  ['Y', 'accept the mask'], ['R', 'reject it: nobody learns from its pixels'], ['Delete', 'remove it, as if it had not been found'],
  ['1 to 9', 'rename it to the n-th class; without a mask, class of new masks'], ['C', 'choose a class from the list, Enter renames'],
  ['A', 'add a mask by clicks: inside, or with Shift outside the thing'], ['X', 'add a mask in a box'], ['Enter, Escape', 'keep the new mask, discard it'],
  ['B, E', 'brush, eraser: on the selected mask, else on a new one'], ['[ and ]', 'smaller, larger brush'], ['S', 'select and move'],
  ['V', 'masks, what is learned, the photograph'], ['+, −, 0', 'zoom in, out, whole photograph'],
  ['Arrows, Space', 'on the picture: move a cursor, click there'], ['Z', 'undo'], ['?', 'this list'],
];

const state = {classes: [], list: [], total: 0, image: null, selected: null, points: [], draft: null, drawing: {key: null}, undo: [], busy: Promise.resolve(), last: 0};
const colourOf = name => rgb(state.classes.find(each => each.name === name)?.colour ?? '#ffffff');
const chosenClass = () => byId('class').value;
const mask = key => state.image?.masks.find(each => each.key === key);
const draws = () => stage.tool === 'brush' || stage.tool === 'erase';
const alive = each => each.status === 'generated' || each.status === 'accepted';

const stage = new Stage(byId('stage'), {picked: select, clicked: clickAt, boxed: boxAt, stroked, zoomed: scale => { byId('smaller').disabled = scale <= 1; }});

function complain(error) {
  byId('problem').textContent = error.message;
  byId('problem').hidden = false;
}

const say = text => { byId('said').textContent = text; };

/** Do one thing after the other, so that decisions keep their order. */
function inTurn(work) {
  state.busy = state.busy.then(work).catch(complain);
  return state.busy;
}

async function start() {
  const found = await (await ask('/v1/review')).json();
  byId('nothing').hidden = found.labels !== null;
  byId('work').hidden = found.labels === null;
  if (found.labels === null) return;
  state.classes = found.classes;
  byId('title').textContent = `Review of ${found.labels}`;
  found.classes.forEach(({name}, at) => {
    byId('class').append(make('option', {value: name, text: at < 9 ? `${at + 1}  ${name}` : name}));
    byId('of-class').append(make('option', {value: name, text: name}));
  });
  byId('order').querySelector('[value=disagreement]').disabled = !found.has_doubts;
  if (!found.has_scores) byId('order').value = 'name';
  for (const tool of ['point', 'box']) byId('work').querySelector(`[data-tool=${tool}]`).disabled = !found.answers_clicks;
  progress(found.progress);
  showTraining(found.train);
  const wanted = decodeURIComponent(location.hash.slice(1));
  await fill();
  const first = wanted || state.list[0]?.name;
  if (first) await open(first).catch(() => state.list[0] && open(state.list[0].name));
  setInterval(look, LOOK);
}

function progress({photographs, done, started}) {
  byId('progress-said').textContent = `${done} of ${photographs} done${started ? `, ${started} started` : ''}`;
  byId('progress-bar').value = photographs ? done / photographs : 0;
}

/** Ask for the list anew, or for more of it. */
async function fill(more = false) {
  const query = new URLSearchParams({order: byId('order').value, below: byId('below').value, limit: PAGE, offset: more ? state.list.length : 0});
  if (byId('of-class').value) query.set('class', byId('of-class').value);
  if (byId('state').value) query.set('state', byId('state').value);
  const found = await (await ask(`/v1/review/images?${query}`)).json();
  state.list = more ? [...state.list, ...found.images] : found.images;
  state.total = found.total;
  progress(found.progress);
  drawList();
}

function drawList() {
  byId('count').textContent = `${state.total} photograph${state.total === 1 ? '' : 's'}`;
  byId('more').hidden = state.list.length >= state.total;
  byId('images').replaceChildren(...state.list.map(each => make('li', {}, make('button',
    {click: () => inTurn(() => open(each.name)), 'aria-current': each.name === state.image?.name && 'true'},
    make('span', {text: each.name}),
    make('span', {text: each.doubt === null ? (each.score === null ? '' : each.score.toFixed(2)) : `${(each.score ?? 0).toFixed(2)} / ${each.doubt.toFixed(2)}`,
      title: each.doubt === null ? 'score' : 'score / how much the model disagrees'}),
    make('small', {text: `${each.state} · ${each.classes.join(', ') || 'no class'}`})))));
}

/** Show a photograph. */
async function open(name) {
  const found = await (await ask(`/v1/review/images/${path(name)}`)).json();
  byId('problem').hidden = true;
  const picture = await (await ask(`/v1/review/pictures/${path(name)}`)).blob();
  if (state.address) URL.revokeObjectURL(state.address);
  state.address = URL.createObjectURL(picture);
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  await stage.open(state.address, `Photograph ${name}`, found);
  state.selected = null;
  state.image = found;
  begin();
  await take(found);
  drawList();
}

/** A photograph's state came from the server. */
async function take(found) {
  state.image = found;
  for (const each of found.masks) each.runs ??= runsOf(each.rle.counts);
  if (!mask(state.selected)) state.selected = null;
  byId('name').textContent = found.name;
  byId('done').setAttribute('aria-pressed', String(Boolean(found.done)));
  byId('done').textContent = found.done ? 'Done ✓' : 'Done';
  drawMasks();
  if (stage.shown === 'result') await fetchResult();
}

function drawMasks() {
  const masks = [...state.image.masks].sort((one, other) => other.area - one.area);
  const pixels = state.image.width * state.image.height;
  const chosen = mask(state.selected);
  byId('no-masks').hidden = masks.length > 0;
  byId('masks').replaceChildren(...masks.map(each => {
    const swatch = make('span', {class: 'swatch'});
    swatch.style.background = `rgb(${colourOf(each.class).join()})`;
    const told = [each.change, each.score === null ? '' : `score ${each.score.toFixed(2)}`,
      each.doubt === null ? '' : `model says ${each.instead} (${each.doubt.toFixed(2)})`,
      each.decision?.reviewer ? `by ${each.decision.reviewer}` : ''].filter(Boolean).join(' · ');
    return make('li', {}, make('button', {'aria-pressed': String(each.key === state.selected), 'data-key': each.key, click: () => select(each.key)},
      swatch, make('span', {text: each.class, class: alive(each) ? undefined : 'gone'}),
      make('span', {text: `${(100 * each.area / pixels).toFixed(1)} %`, class: 'dim'}), make('small', {text: told || ' '})));
  }));
  for (const button of byId('deciding').querySelectorAll('button')) button.disabled = !chosen;
  nameRenaming();
  byId('undo').disabled = undoable() === undefined;
  draw();
}

/** What the button to rename would do. */
function nameRenaming() {
  const button = byId('deciding').querySelector('[data-action=rename]');
  const chosen = mask(state.selected);
  button.textContent = `Rename to ${chosenClass()}`;
  button.disabled = !chosen || chosen.class === chosenClass();
}

/** Paint masks, or what is being drawn. */
function draw() {
  stage.draft = state.draft;
  stage.draftColour = colourOf(mask(state.selected)?.class ?? chosenClass());
  stage.points = state.points;
  stage.show(state.image.masks.map(each => ({...each, colour: colourOf(each.class), hidden: !alive(each) && each.key !== state.selected})), state.selected);
  byId('adding').hidden = state.draft === null || draws();
  byId('adding-class').textContent = chosenClass();
}

function select(key) {
  if (['point', 'box'].includes(stage.tool)) setTool('select');
  state.selected = key;
  begin();
  const chosen = mask(key);
  if (chosen) {
    byId('class').value = chosen.class;
    say(`${chosen.class}, ${chosen.change || 'as generated'}`);
  }
  drawMasks();
  byId('masks').querySelector('[aria-pressed=true]')?.scrollIntoView({block: 'nearest'});
}

function setTool(tool) {
  if (byId('work').querySelector(`[data-tool=${tool}]`).disabled) return;
  stage.tool = tool;
  byId('stage').dataset.tool = tool;
  for (const button of byId('work').querySelectorAll('[data-tool]')) {
    if (button.tagName === 'BUTTON') button.setAttribute('aria-pressed', String(button.dataset.tool === tool));
  }
  byId('size-label').hidden = !['brush', 'erase'].includes(tool);
  byId('outside-label').hidden = tool !== 'point';
  if (['point', 'box'].includes(tool)) state.selected = null; // these make a new mask
  begin();
  if (state.image) drawMasks();
}

/** Forget what was not kept. What is drawn from now on changes the selected mask, or begins a new one. */
function begin() {
  const chosen = mask(state.selected);
  state.points = [];
  state.drawing = {key: chosen ? chosen.key : null};
  state.draft = null;
  if (state.image && draws()) state.draft = bitmapOf(chosen ? runsOf(chosen.rle.counts) : [], state.image);
  byId('adding-sure').textContent = '';
}

function clickAt({x, y, inside}) {
  state.points = [...state.points, {x, y, inside: inside && !byId('outside').checked}];
  draw();
  inTurn(() => question({points: state.points}));
}

function boxAt(box) {
  if (box[2] - box[0] < 2 || box[3] - box[1] < 2) return;
  inTurn(() => question({box}));
}

async function question(asked) {
  const name = state.image.name;
  say('Looking for the mask');
  const found = await (await ask('/v1/review/masks', {json: {image: name, ...asked}})).json();
  if (state.image.name !== name) return;
  state.draft = bitmapOf(runsOf(found.rle.counts), state.image);
  byId('adding-sure').textContent = ` (the mask generator is ${Math.round(100 * Math.min(1, Math.max(0, found.predicted_iou)))} % sure)`;
  say(`A mask was found. Enter adds it as ${chosenClass()}, Escape discards it.`);
  draw();
}

/** A stroke of the brush has ended. It is saved at once; the next may begin before the answer is there. */
function stroked(bitmap) {
  const {drawing} = state, rle = encode(bitmap, state.image), class_name = chosenClass();
  if (drawing.key === null && !bitmap.includes(1)) return;
  inTurn(async () => {
    if (drawing.key !== null) {
      await decide('replace', {mask: drawing.key, rle});
      return;
    }
    drawing.key = `+${await decide('add', {class_name, rle})}`;
    if (state.drawing !== drawing) return;
    state.selected = drawing.key;
    drawMasks();
  });
}

function keep() {
  if (state.draft === null || draws() || !state.draft.includes(1)) return;
  const rle = encode(state.draft, state.image);
  inTurn(() => decide('add', {class_name: chosenClass(), rle}));
}

/** Save a decision and show what it makes of the photograph; its number. */
async function decide(action, values = {}) {
  const name = state.image.name;
  const made = await (await ask('/v1/review/decisions',
    {json: {image: name, action, seen: state.image.seen, reviewer: byId('reviewer').value.trim(), ...values}})).json();
  if (action !== 'undo') state.undo.push({image: name, number: made.number});
  byId('problem').hidden = made.conflicts.length === 0;
  if (made.conflicts.length) complain({message: told(made.conflicts)});
  say(`Saved: ${action} ${values.class_name ?? mask(values.mask)?.class ?? ''}`);
  if (action === 'add' && !draws()) begin();
  await take(made.image);
  if (!['add', 'replace'].includes(action) && !stage.act) begin();
  draw();
  progress(made.progress);
  const listed = state.list.find(each => each.name === name);
  if (listed) {
    listed.state = made.image.done ? 'done' : made.image.masks.some(each => each.decision) ? 'started' : 'open';
    drawList();
  }
  return made.number;
}

const told = others => others.map(each => `${each.reviewer || 'Somebody else'} decided “${each.action}${each.class_name ? ` ${each.class_name}` : ''}” on this ` +
  `${each.mask === null ? 'photograph' : 'mask'} a moment before. Your decision counts now; Undo takes it back.`).join(' ');

function onSelected(action, values = {}) {
  if (state.selected !== null) inTurn(() => decide(action, {mask: state.selected, ...values}));
}

/** The decision that Undo takes back: the last of this session, or else the last on this photograph. */
function undoable() {
  const own = state.undo.at(-1);
  if (own) return own;
  const numbers = [state.image?.done?.number, ...(state.image?.masks ?? []).map(each => each.decision?.number)].filter(Boolean);
  return numbers.length ? {image: state.image.name, number: Math.max(...numbers)} : undefined;
}

function undo() {
  inTurn(async () => {
    const last = undoable();
    if (!last) return;
    state.undo.pop();
    if (last.image !== state.image.name) await open(last.image);
    await decide('undo', {undoes: last.number});
  });
}

function done() {
  inTurn(async () => {
    if (!state.image.done) await decide('done');
    await go(1);
  });
}

/** On to the photograph so many places further in the list. */
async function go(step) {
  const at = state.list.findIndex(each => each.name === state.image?.name);
  if (at + step >= state.list.length && state.list.length < state.total) await fill(true);
  const to = state.list[at + step];
  if (to) await open(to.name);
  else say('This was the last photograph of the list.');
}

function nextMask(step) {
  const keys = [...byId('masks').querySelectorAll('button')].map(each => each.dataset.key);
  const at = keys.indexOf(state.selected);
  if (keys.length) select(keys[(at + step + (at < 0 && step < 0 ? 1 : 0) + keys.length) % keys.length]);
}

async function fetchResult() {
  const found = await (await ask(`/v1/review/results/${path(state.image.name)}`)).blob();
  stage.result = await createImageBitmap(found);
  stage.paint();
}

function setShown(what) {
  byId('shown').value = stage.shown = what;
  if (what === 'result') inTurn(fetchResult);
  else stage.paint();
}

/** What others decided on this photograph meanwhile. */
function look() {
  if (document.hidden || !state.image || state.points.length || stage.act) return;
  inTurn(async () => {
    const found = await (await ask(`/v1/review/images/${path(state.image.name)}`)).json();
    if (found.name === state.image.name && found.seen !== state.image.seen && !stage.act) await take(found);
  });
}

function chooseClass(name) {
  byId('class').value = name;
  if (state.selected !== null && mask(state.selected)?.class !== name) onSelected('rename', {class_name: name});
  if (state.image) drawMasks();
}

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId('keys').open || byId('work').hidden) return;
  if (event.target.matches('input:not([type=range], [type=checkbox]), textarea')) return;
  const inList = event.target.matches('select');
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (inList && key !== 'Escape') return;
  const at = Number(key);
  const act = at >= 1 && at <= 9 ? () => state.classes[at - 1] && chooseClass(state.classes[at - 1].name) : TOOLS[key] ? () => setTool(TOOLS[key]) : {
    'j': () => inTurn(() => go(1)), 'k': () => inTurn(() => go(-1)), 'd': done, 'n': () => nextMask(1), 'p': () => nextMask(-1),
    'y': () => onSelected('accept'), 'r': () => onSelected('reject'), 'Delete': () => onSelected('remove'), 'Backspace': () => onSelected('remove'),
    'c': () => byId('class').focus(), 'z': undo, '?': () => byId('keys').showModal(), '+': () => stage.zoom(1.25), '=': () => stage.zoom(1.25),
    '-': () => stage.zoom(0.8), '0': () => stage.fit(), '[': () => setSize(-3), ']': () => setSize(3),
    'v': () => setShown({masks: 'result', result: 'photograph', photograph: 'masks'}[stage.shown]),
    'Escape': () => !byId('adding').hidden || state.points.length ? setTool(stage.tool) : inList ? byId('stage').focus() : select(null),
    'Enter': !byId('adding').hidden && event.target.tagName !== 'BUTTON' ? keep : undefined,
  }[key];
  if (!act) return;
  event.preventDefault();
  act();
});

function rename(event) {
  event.preventDefault();
  if (mask(state.selected).class !== chosenClass()) onSelected('rename', {class_name: chosenClass()});
}

function setSize(more) {
  byId('size').valueAsNumber += more;
  stage.brush = byId('size').valueAsNumber;
}

for (const button of byId('work').querySelectorAll('button[data-tool]')) button.addEventListener('click', () => setTool(button.dataset.tool));
for (const button of byId('deciding').querySelectorAll('button')) {
  button.addEventListener('click', () => onSelected(button.dataset.action, button.dataset.action === 'rename' ? {class_name: chosenClass()} : {}));
}
for (const [id, act] of Object.entries({previous: () => inTurn(() => go(-1)), next: () => inTurn(() => go(1)), done, undo, keep, drop: () => setTool(stage.tool),
  more: () => inTurn(() => fill(true)), larger: () => stage.zoom(1.5), smaller: () => stage.zoom(1 / 1.5), whole: () => stage.fit(), help: () => byId('keys').showModal()})) {
  byId(id).addEventListener('click', act);
}
for (const id of ['order', 'of-class', 'state', 'below']) byId(id).addEventListener('change', () => inTurn(() => fill()));
byId('below').addEventListener('input', () => { byId('below-said').textContent = byId('below').valueAsNumber.toFixed(2); });
byId('class').addEventListener('change', () => { if (state.image) drawMasks(); }); // arrow keys change it on their way: nothing is renamed yet
byId('class').addEventListener('keydown', event => { if (event.key === 'Enter' && state.selected !== null) rename(event); });
byId('shown').addEventListener('change', () => setShown(byId('shown').value));
byId('size').addEventListener('input', () => setSize(0));
byId('reviewer').value = localStorage.getItem('patchword-reviewer') ?? '';
byId('reviewer').addEventListener('change', () => localStorage.setItem('patchword-reviewer', byId('reviewer').value.trim()));
byId('keys-rows').append(...KEYS.map(([keys, what]) => make('tr', {}, make('th', {scope: 'row'}, make('kbd', {text: keys})), make('td', {text: what}))));
inTurn(start);

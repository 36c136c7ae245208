// Jobs: started, watched, cancelled and resumed.

import {ask, byId, make} from './common.js';
import {jobLine, wait} from './job_view.js';

const FIELDS = {
  label: [['photos', 'Folder of photographs'], ['classes', 'Class names, or a class list file'], ['out', 'Folder of the labels']],
  align: [['labels', 'Folder of labels'], ['out', 'Folder of the model']],
  evaluate: [['photos', 'Folder of photographs'], ['masks', 'Folder of masks'], ['classes', 'Class names, or a class list file'],
    ['model', 'Folder of the model'], ['out', 'Folder of the report']],
};
const shown = new Map(); // id -> what is on the page of a job
let commands = {};

function complain(error) {
  byId('problem').textContent = error.message;
  byId('problem').hidden = false;
}

function drawFields() {
  const command = byId('command').value;
  byId('fields').replaceChildren(...FIELDS[command].map(([name, label]) => make('label', {class: 'field', text: label},
    make('input', {name, required: true, autocapitalize: 'none', autocomplete: 'off', spellcheck: 'false', placeholder: name === 'classes' ? 'cat, dog, sofa; couch' : name}))));
  byId('allowed').textContent = `Paths are relative to the folder. Options: ${commands[command].join(', ')}.`;
}

/** One job on the page; what a person has opened stays open. */
function draw(job) {
  let view = shown.get(job.id);
  if (!view) {
    const log = make('pre', {tabindex: '0', 'aria-label': `Log of ${job.command} ${job.options.out}`});
    const details = make('details', {}, make('summary', {text: 'Log'}), log);
    const line = make('div');
    const cancel = make('button', {text: 'Cancel', click: () => act(job.id, 'cancel')});
    const resume = make('button', {text: 'Resume', click: () => act(job.id, 'resume')});
    const item = make('li', {class: 'panel', 'data-id': job.id},
      make('div', {class: 'row head'}, make('h3', {text: `${job.command} → ${job.options.out}`}), make('span', {class: 'row'}, cancel, resume)),
      make('p', {class: 'hint', text: new Date(job.created).toLocaleString()}), line, details);
    view = {item, line, cancel, resume, log, details, read: 0};
    details.addEventListener('toggle', () => readLog(job.id, view));
    shown.set(job.id, view);
  }
  view.line.replaceChildren(jobLine(job));
  view.cancel.hidden = !['waiting', 'running'].includes(job.state);
  view.resume.hidden = !job.can_resume;
  if (view.details.open) readLog(job.id, view);
  return view.item;
}

async function readLog(id, view) {
  try {
    for (;;) {
      const {text, next} = await (await ask(`/v1/jobs/${id}/log?after=${view.read}`)).json();
      if (next === view.read) return;
      view.read = next;
      view.log.append(text);
      view.log.scrollTop = view.log.scrollHeight;
    }
  } catch (error) {
    complain(error);
  }
}

async function act(id, what) {
  try {
    await ask(`/v1/jobs/${id}/${what}`, {method: 'POST'});
    await refresh();
  } catch (error) {
    complain(error);
  }
}

async function refresh() {
  const found = await (await ask('/v1/jobs')).json();
  commands = found.commands;
  byId('nothing').hidden = found.root !== null;
  byId('work').hidden = found.root === null;
  byId('root').textContent = found.root ?? '';
  byId('none').hidden = found.jobs.length > 0;
  const items = found.jobs.map(draw);
  const list = byId('jobs');
  if (items.length !== list.children.length || items.some((item, at) => list.children[at] !== item)) list.replaceChildren(...items);
  return found.root !== null;
}

byId('new').addEventListener('submit', async event => {
  event.preventDefault();
  byId('problem').hidden = true;
  try {
    const options = Object.fromEntries([...byId('fields').querySelectorAll('input')].map(input => [input.name, input.value.trim()]));
    const further = byId('further').value.trim();
    await ask('/v1/jobs', {json: {command: byId('command').value, options: {...options, ...(further ? JSON.parse(further) : {})}}});
    await refresh();
  } catch (error) {
    complain(error instanceof SyntaxError ? {message: `Further options are not JSON: ${error.message}`} : error);
  }
});
byId('command').addEventListener('change', drawFields);

try {
  const there = await refresh();
  byId('command').append(...Object.keys(FIELDS).map(name => make('option', {value: name, text: name})));
  drawFields();
  while (there) {
    await wait(document.hidden ? 5000 : 1000);
    await refresh().catch(complain);
  }
} catch (error) {
  complain(error);
}

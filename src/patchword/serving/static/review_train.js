// Training again on the reviewed labels: a job, its progress, and what the new model decides otherwise.

import {ask, byId, make, percent} from './common.js';
import {jobLine, wait} from './job_view.js';

/** Offer a training, or say why there can be none; show the one that runs, or the last one. */
export async function showTraining({options, why_not: why, last}) {
  byId('training-why').textContent = why ? `Not here: ${why}.` : `Trains ${options.out} on ${options.labels} as reviewed. Its progress is shown here and among the jobs.`;
  byId('train').hidden = Boolean(why);
  byId('train').addEventListener('click', () => working(train));
  if (!last) return;
  await working(async () => {
    const job = await found(last);
    draw(job);
    if (going(job)) {
      byId('training').open = true;
      await follow(job);
    } else if (job.state === 'done') { // a comparison takes a while: only for who looks
      byId('training').addEventListener('toggle', () => follow(job).catch(complain), {once: true});
    }
  });
}

const going = job => ['waiting', 'running'].includes(job.state);
const found = async id => (await ask(`/v1/jobs/${id}`)).json();

function draw(job) {
  byId('training').firstElementChild.textContent = `Train again (${job.options.out}: ${job.state})`;
  byId('training-state').replaceChildren(jobLine(job));
}

const complain = error => byId('training-state').append(make('p', {class: 'bad', text: error.message}));

/** Do something during which nobody starts another training. */
async function working(what) {
  byId('train').disabled = true;
  await what().catch(complain);
  byId('train').disabled = false;
}

async function train() {
  const {train: proposal} = await (await ask('/v1/review')).json(); // with a folder that nobody has taken meanwhile
  await follow(await (await ask('/v1/jobs', {json: {command: 'align', options: proposal.options}})).json());
}

/** Show a job until it ends, then what its model decides otherwise. */
async function follow(job) {
  draw(job);
  while (going(job)) {
    await wait(1000);
    job = await found(job.id);
    draw(job);
  }
  if (job.state !== 'done') return;
  const comparing = make('p', {class: 'dim', text: 'Comparing with the model before …'});
  byId('training-state').append(comparing);
  try {
    comparing.replaceWith(changed(await (await ask(`/v1/review/changes/${job.id}`)).json(), job));
  } catch (error) {
    comparing.remove();
    throw error;
  }
}

function changed(change, job) {
  const rows = [
    change.changed !== null && ['pixels that it decides otherwise than the model before', percent(change.changed)],
    change.agreement_before !== null && ['pixels as reviewed, the model before', percent(change.agreement_before)],
    ['pixels as reviewed, the new model', percent(change.agreement_after)],
  ].filter(Boolean);
  return make('div', {},
    make('table', {}, make('tbody', {}, ...rows.map(([what, value]) => make('tr', {}, make('th', {scope: 'row', text: what}), make('td', {text: value}))))),
    make('p', {class: 'hint', text: `On ${change.photographs} photographs of the labels, the reviewed ones first. The new model (${job.options.out}) has learned from them: ` +
      'this says what it took up, not how good it is.'}));
}

// Training again on the reviewed labels: a job, its progress, and what the new model decides otherwise.

import {ask, byId, make, percent} from './common.js';
import {jobLine, wait} from './job_view.js';

/** Offer a training, or say why there can be none. */
export function showTraining({options, why_not: why}) {
  byId('training-why').textContent = why ? `Not here: ${why}.` : `Trains ${options.out} on ${options.labels} as reviewed. Its progress is shown here and among the jobs.`;
  byId('train').hidden = Boolean(why);
  byId('train').addEventListener('click', () => train());
}

async function train() {
  const place = byId('training-state');
  byId('train').disabled = true;
  try {
    const {train: proposal} = await (await ask('/v1/review')).json(); // with a folder that nobody has taken meanwhile
    let job = await (await ask('/v1/jobs', {json: {command: 'align', options: proposal.options}})).json();
    while (['waiting', 'running'].includes(job.state)) {
      place.replaceChildren(jobLine(job));
      await wait(1000);
      job = await (await ask(`/v1/jobs/${job.id}`)).json();
    }
    place.replaceChildren(jobLine(job));
    if (job.state !== 'done') return;
    place.append(make('p', {class: 'dim', text: 'Comparing with the model before …'}));
    const change = await (await ask(`/v1/review/changes/${job.id}`)).json();
    place.lastChild.replaceWith(changed(change, job));
  } catch (error) {
    place.append(make('p', {class: 'bad', text: error.message}));
  } finally {
    byId('train').disabled = false;
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

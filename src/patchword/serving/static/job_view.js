// How a job is shown: its state, how far it is and how long it will take.

import {make} from './common.js';

export const wait = milliseconds => new Promise(done => setTimeout(done, milliseconds));

/** A time span for a person. */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole % 3600 / 60)).padStart(2, '0')} min`;
}

/** State and progress of a job, in a line and a bar. */
export function jobLine(job) {
  const {progress} = job;
  const said = {waiting: 'waiting for its turn', running: 'starting'}[job.state] ?? job.state;
  const parts = [progress && job.state === 'running' ? `${progress.doing}: ${progress.done} of ${progress.total} ${progress.unit}` : said];
  if (progress && job.state === 'running' && progress.left !== null) parts.push(`${duration(progress.left)} left`);
  if (job.reason?.startsWith(said)) parts[0] = job.reason; // it says so itself
  else if (job.reason) parts.push(job.reason);
  const line = make('div', {class: 'job-line'}, make('p', {class: {done: 'good', failed: 'bad'}[job.state], text: parts.join(', ')}));
  if (job.state === 'running') {
    line.append(make('progress', progress?.total
      ? {max: progress.total, value: progress.done, 'aria-label': progress.doing} : {'aria-label': 'starting'}));
  }
  return line;
}

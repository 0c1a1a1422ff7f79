// How far a job has come: its phases, and what is left.

import { h, setPart } from './dom.js';
import { duration } from './format.js';
import { hasEnded } from './events.js';

/** The phases of a job, in order. */
export const PHASES = ['load', 'plan', 'verify', 'score', 'prune', 'compensate', 'finetune', 'evaluate', 'publish'];

/** The phases as a row of segments, of which the running one is filled as far as it has come. */
export function segments(state, progress) {
  const current = progress ? PHASES.indexOf(progress.phase) : -1;
  const all = state === 'succeeded';
  const segment = (name, index) => {
    const done = all || index < current;
    const part = h(done ? 'i.done' : index === current ? 'i.now' : 'i', { title: name });
    return index === current ? setPart(part, progress.fraction) : part;
  };
  return h(`div.phases.${state}`, { role: 'img', 'aria-label': spoken(state, progress) }, PHASES.map(segment));
}

function spoken(state, progress) {
  if (!progress || hasEnded(state)) return state;
  return `phase ${PHASES.indexOf(progress.phase) + 1} of ${PHASES.length}, ${[inWords(progress), whole(progress)].filter(Boolean).join(', in all ')}`;
}

/** The running phase in words: `finetune, epoch 3, 40 %, 17 s to its end`. */
export function inWords(progress, { time = true } = {}) {
  const parts = [progress.phase];
  if (progress.epoch !== null && progress.epoch !== undefined) parts.push(`epoch ${progress.epoch}`);
  if (progress.fraction > 0 && progress.fraction < 1) parts.push(`${Math.floor(progress.fraction * 100)} %`);
  if (time && progress.eta_s > 0) parts.push(`${duration(progress.eta_s)} to its end`);
  return parts.join(', ');
}

/** How far a running job has come and what is left of it, in words: `40 %, 2 min left`; nothing before there is a plan. */
export function whole(progress) {
  const parts = [];
  if (typeof progress?.job_fraction === 'number') parts.push(`${Math.floor(progress.job_fraction * 100)} %`);
  if (progress?.job_eta_s > 0) parts.push(`${duration(progress.job_eta_s)} left`);
  return parts.join(', ');
}

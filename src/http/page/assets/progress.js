// How far a job has come: its phases, and what is left.

import { h, setPart } from './dom.js';
import { between, duration } from './format.js';
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
  return `phase ${PHASES.indexOf(progress.phase) + 1} of ${PHASES.length}, ${inWords(progress)}`;
}

/** The running phase in words: `finetune, epoch 3, 40 %, 17 s to its end`. */
export function inWords(progress, { time = true } = {}) {
  const parts = [progress.phase];
  if (progress.epoch !== null && progress.epoch !== undefined) parts.push(`epoch ${progress.epoch}`);
  if (progress.fraction > 0 && progress.fraction < 1) parts.push(`${Math.floor(progress.fraction * 100)} %`);
  if (time && progress.eta_s > 0) parts.push(`${duration(progress.eta_s)} to its end`);
  return parts.join(', ');
}

/**
 * Seconds to the end of a running job: what its plan expects less what has passed, and at least what its phase still takes.
 * Null where neither is known.
 */
export function remaining({ started_at: started, plan, progress }) {
  const expected = plan?.seconds_estimate && started ? Math.max(0, plan.seconds_estimate - between(started)) : null;
  const phase = progress?.eta_s ?? null;
  if (expected === null && phase === null) return null;
  return Math.max(expected ?? 0, phase ?? 0);
}

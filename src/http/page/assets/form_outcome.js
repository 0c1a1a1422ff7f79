// What the server says of the job in the form: its plan, or everything that is wrong with it.

import { h, fill } from './dom.js';
import { Problem, send } from './api.js';
import { problem } from './ui.js';
import { inline } from './prose.js';
import { details, figures, warnings } from './planned.js';

const DELAY = 350;

/**
 * The part of the form with plan and problems. `check(job, ready)` asks the server after a pause; `guard(task)` does a request
 * whose problems are shown here. `fields()` are the fields beside which problems stand.
 */
export function outcome(fields, signal) {
  const body = h('div', { 'aria-live': 'polite' });
  const title = h('h2', {}, 'Plan');
  const element = h('div.plan', {}, title, body);
  let pending = null;
  let timer = null;

  const clear = () => fields().forEach((field) => field.fault([]));
  const refuse = (error) => {
    clear();
    const byField = new Map();
    for (const fault of error.errors ?? []) {
      const field = owner(fields(), fault.pointer);
      if (field) byField.set(field, [...(byField.get(field) ?? []), fault.detail]);
    }
    byField.forEach((texts, field) => field.fault(texts));
    title.textContent = 'Not yet';
    fill(body, error.errors?.length ? list(error.errors, fields()) : problem(error));
  };
  const check = (job, ready) => {
    clearTimeout(timer);
    pending?.abort();
    if (!ready) {
      clear();
      title.textContent = 'Plan';
      fill(body, h('p.muted', {}, 'Choose members to see what would come of them, what it takes, and everything that stands in its way.'));
      return;
    }
    element.setAttribute('aria-busy', 'true');
    timer = setTimeout(async () => {
      pending = new AbortController();
      const own = AbortSignal.any([pending.signal, signal]);
      try {
        const answer = await send('POST', '/v1/jobs?validate_only=true', { json: job, signal: own });
        const plan = await answer.json();
        clear();
        title.textContent = 'Plan';
        fill(body, warnings(plan.warnings), figures(plan), details(plan));
      } catch (error) {
        if (own.aborted) return;
        refuse(error);
      }
      element.removeAttribute('aria-busy');
    }, DELAY);
  };
  const guard = async (task) => {
    try {
      return await task();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      refuse(error);
      return null;
    }
  };
  return { element, check, guard };
}

/** The field whose pointer holds `pointer`, the nearest of several. */
function owner(fields, pointer) {
  const holds = ({ pointer: own }) => pointer === own || pointer.startsWith(`${own}/`) || (pointer === '/dataset' && own === '/dataset/name');
  return fields.filter(holds).reduce((best, field) => (best === null || field.pointer.length > best.pointer.length ? field : best), null);
}

function list(faults, fields) {
  const entry = (fault) => {
    const field = owner(fields, fault.pointer);
    const name = h('code', {}, fault.pointer || '/');
    return h('li', {}, field ? h('button.link', { type: 'button', onclick: () => field.focus() }, name) : name, ' ', inline(fault.detail));
  };
  return h('div.notice.bad', {}, h('strong', {}, faults.length === 1 ? 'One value is at fault' : `${faults.length} values are at fault`), h('ul', {}, faults.map(entry)));
}

// The events of a job as they come, behind every lost connection from where they stopped.

import { connection, v1 } from './api.js';

const PAUSE = 2000;
const KINDS = ['state', 'progress', 'metric', 'warning', 'log'];
const ENDED = new Set(['succeeded', 'failed', 'cancelled']);

/** Whether a job in this state never changes again. */
export function hasEnded(state) {
  return ENDED.has(state);
}

/**
 * Calls `take(event)` with every event of the job `id` until its end or until `signal` is aborted. Stored events have a
 * `seq`; progress in between is `{type: 'progress', data}` alone.
 */
export function follow(id, signal, take) {
  let after = 0;
  let source = null;
  let timer = null;

  const open = () => {
    source = new EventSource(`${v1('jobs', id, 'events')}?after=${after}`);
    source.onopen = () => connection.report(true);
    source.onerror = () => {
      // A browser gives up where the answer is no stream, as that of a proxy in front of an absent server.
      source.close();
      timer = setTimeout(open, PAUSE);
    };
    for (const kind of KINDS) source.addEventListener(kind, receive);
  };
  const receive = ({ type, data, lastEventId }) => {
    const body = JSON.parse(data);
    const event = body.type === undefined ? { type, data: body } : body;
    if (event.seq !== undefined) {
      if (event.seq <= after) return;
      after = Number(lastEventId);
    }
    take(event);
    if (event.type === 'state' && hasEnded(event.data.state)) close();
  };
  const close = () => {
    source.close();
    clearTimeout(timer);
  };
  open();
  signal.addEventListener('abort', close, { once: true });
}

// The log of a job as it grows.

import { h } from './dom.js';
import { card } from './ui.js';

const NEAR = 24;

/** A place for lines; `add(event, text)` puts one at its end. It stays at the end as long as nobody has scrolled away. */
export function logView() {
  const lines = h('ol.log', { tabindex: 0, 'aria-label': 'Log' });
  const counted = h('span.muted.small', {}, 'nothing yet');
  let count = 0;
  const add = (event, text) => {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < NEAR;
    const line = h(event.type === 'warning' ? 'li.warning' : event.type === 'state' ? 'li.mark' : 'li', {}, h('time', { datetime: event.at, title: event.at }, new Date(event.at).toTimeString().slice(0, 8)), h('span', {}, text));
    lines.append(line);
    count += 1;
    counted.textContent = `${count} lines`;
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  };
  const element = card('Log', lines, { flush: true });
  element.querySelector('header').append(counted);
  return { element, add };
}

// The list of comparisons.

import { h, fill, reconcile } from './dom.js';
import { get } from './api.js';
import { badge, code, empty, fail, head, time } from './ui.js';
import { link } from './router.js';
import { poll } from './poll.js';
import { tally } from './comparison.js';

const INTERVAL = 3000;

/** Shows the comparisons and keeps them up to date. */
export function show(root, { query }, signal) {
  const after = query.get('after');
  const list = h('div.card', { 'aria-busy': 'true' });
  const pages = h('div.pages');
  fill(root, head('Comparisons'), list, pages);
  const body = h('tbody');
  const table = h('table.reflow', {}, h('thead', {}, h('tr', {}, ['Title', 'State', 'Runs', 'Created'].map((name) => h('th', { scope: 'col' }, name)))), body);
  const refresh = async () => {
    const page = await get(`/v1/comparisons?${new URLSearchParams({ limit: '25', ...(after ? { after } : {}) })}`, { signal });
    list.removeAttribute('aria-busy');
    if (page.data.length === 0) fill(list, nothing());
    else if (!table.isConnected) fill(list, table);
    reconcile(body, page.data, ({ id }) => id, row);
    fill(pages, after ? h('a.button.tight', { href: link(['comparisons']) }, 'Newest') : null, page.has_more ? h('a.button.tight', { href: link(['comparisons'], { after: page.next_after }) }, 'Older') : null);
  };
  poll(refresh, INTERVAL, signal, (error) => fail(list, error, signal));
}

function row(comparison) {
  return h('tr.row', {},
    h('td', {}, h('a.name', { href: link(['comparisons', comparison.id]) }, comparison.title), comparison.quick ? h('span.chip', {}, 'quick') : null),
    h('td', {}, badge(comparison.state)),
    h('td.wide', {}, tally(comparison.counts)),
    h('td', { 'data-label': 'Created' }, time(comparison.created_at)));
}

function nothing() {
  const plan = `{ "title": "What compensation brings", "seeds": [0, 1],
  "job": { "dataset": "mnist.tar" },
  "ensembles": [{ "name": "two", "members": ["m0.safetensors", "m1.safetensors"] }],
  "methods": [{ "name": "paper", "job": { "method": { "compensate": "none" } } },
              { "name": "compensated" }] }`;
  return empty('No comparisons yet',
    h('p', {}, 'A comparison runs several methods, sizes and seeds side by side and puts them into one report. Its plan is a file:'),
    code(plan),
    h('p', {}, h('code', {}, `curl --json @plan.json ${location.origin}/v1/comparisons`)));
}

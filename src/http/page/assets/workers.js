// The workers, and whether the server can work.

import { h, fill, reconcile } from './dom.js';
import { Problem, get } from './api.js';
import { badge, card, empty, facts, fail, head, time } from './ui.js';
import { poll } from './poll.js';
import { shortId } from './format.js';
import { owns } from './session.js';

const INTERVAL = 5000;

/** Shows the running workers and keeps them up to date. */
export function show(root, place, signal) {
  const list = h('div.card', { 'aria-busy': 'true' });
  const server = h('div');
  fill(root, head('Workers'), list, server);
  const body = h('tbody');
  const table = h('table.reflow', {}, h('thead', {}, h('tr', {}, ['Worker', 'Devices', 'Runs', 'Jobs at a time', 'Version', 'Started', 'Last seen'].map((name) => h('th', { scope: 'col' }, name)))), body);
  const refresh = async () => {
    const [workers, running, health] = await Promise.all([get('/v1/workers', { signal }), get('/v1/jobs?state=running&limit=200', { signal }), readiness(signal)]);
    list.removeAttribute('aria-busy');
    if (workers.data.length === 0) fill(list, empty('No worker is running', h('p', {}, 'Jobs wait in the queue until one is. Start one beside the server, on the same file system:'), h('code', {}, 'engraft worker --data-dir DIR')));
    else if (!table.isConnected) fill(list, table);
    reconcile(body, workers.data, ({ id }) => id, row);
    fill(server, card('Server', facts([
      ['State', health.error ? [badge('failed'), ` ${health.error}`] : badge('ready')],
      ['Version', health.version],
      ['Jobs running', h('a', { href: '#/jobs?state=running' }, running.has_more ? `${running.data.length} or more` : running.data.length)],
    ])));
  };
  poll(refresh, INTERVAL, signal, (error) => fail(list, error, signal));
}

async function readiness(signal) {
  const { version } = await get('/healthz', { signal });
  try {
    await get('/readyz', { signal });
    return { version, error: null };
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    return { version, error: error.detail };
  }
}

/** A job that a worker runs; administrators see those of other tenants, whose pages are not theirs. */
function job({ id, tenant }) {
  const name = h('span.mono', { title: id }, shortId(id));
  return h('div', {}, owns(tenant) ? h('a', { href: `#/jobs/${id}` }, name) : [name, ` ${tenant}`]);
}

function row(worker) {
  return h('tr.row', {},
    h('td', {}, h('span.mono', { title: worker.id }, shortId(worker.id)), worker.host ? h('span.muted', {}, ` ${worker.host}`) : null),
    h('td', {}, h('span.chips', {}, worker.devices.map((device) => h('span.chip', {}, device)))),
    h('td', { 'data-label': 'Runs' }, worker.jobs.length === 0 ? '–' : worker.jobs.map(job)),
    h('td', { 'data-label': 'Jobs at a time' }, worker.slots),
    h('td', { 'data-label': 'Version' }, worker.version),
    h('td', { 'data-label': 'Started' }, time(worker.started_at)),
    h('td', { 'data-label': 'Last seen' }, time(worker.heartbeat_at)));
}

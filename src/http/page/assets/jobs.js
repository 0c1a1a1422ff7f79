// The list of jobs.

import { h, fill, reconcile } from './dom.js';
import { get, send, v1 } from './api.js';
import { badge, confirm, empty, fail, head, labels, time, toast } from './ui.js';
import { between, duration, shortId } from './format.js';
import { hasEnded } from './events.js';
import { go, link } from './router.js';
import { poll } from './poll.js';
import { canWrite } from './session.js';
import { inWords, segments, whole } from './progress.js';

const STATES = ['queued', 'running', 'succeeded', 'failed', 'cancelled'];
const INTERVAL = 2000;
const PAGE = '25';

/** Shows the jobs that the query selects, and keeps them up to date. */
export function show(root, { query }, signal) {
  const chosen = { state: query.get('state'), label: query.getAll('label'), after: query.get('after') };
  const actions = canWrite() ? [h('a.button.primary', { href: '#/new' }, 'New job')] : [];
  const list = h('div.card', { 'aria-busy': 'true' });
  const pages = h('div.pages');
  fill(root, head('Jobs', ...actions), filters(chosen), list, pages);

  const body = h('tbody');
  const table = h('table.reflow.jobs', {}, h('thead', {}, h('tr', {}, ['Job', 'State', 'Progress', 'Created', 'Took', ''].map((name) => h('th', { scope: 'col' }, name)))), body);
  const again = () => refresh().catch((error) => fail(list, error, signal));
  const refresh = async () => {
    const page = await get(`/v1/jobs?${parameters(chosen)}`, { signal });
    list.removeAttribute('aria-busy');
    if (page.data.length === 0) fill(list, nothing(chosen));
    else if (!table.isConnected) fill(list, table);
    reconcile(body, page.data, (job) => job.id, (job) => row(job, chosen, again));
    fill(pages, paging(chosen, page));
  };
  poll(refresh, INTERVAL, signal, (error) => fail(list, error, signal));
}

function parameters({ state, label, after }) {
  const query = new URLSearchParams({ limit: PAGE });
  if (state) query.set('state', state);
  if (after) query.set('after', after);
  for (const one of label) query.append('label', one);
  return query;
}

function filters(chosen) {
  const of = (state) => link(['jobs'], { state, label: chosen.label });
  const state = (name) => h('a', { href: of(name), 'aria-current': chosen.state === name ? 'true' : null }, name ?? 'all');
  const without = (one) => link(['jobs'], { state: chosen.state, label: chosen.label.filter((other) => other !== one) });
  const chip = (one) => h('a.chip', { href: without(one), 'aria-label': `Remove the filter ${one}` }, one, h('span', { 'aria-hidden': 'true' }, '×'));
  const input = h('input', { placeholder: 'label=value', 'aria-label': 'Filter by a label, as name=value', pattern: '[^=]+=.*', title: 'name=value' });
  const form = h('form', { onsubmit: (event) => { event.preventDefault(); go(link(['jobs'], { state: chosen.state, label: [...chosen.label, input.value.trim()] })); } }, input);
  return h('div.filters', {}, h('nav.segmented', { 'aria-label': 'State' }, state(null), STATES.map(state)), form, h('span.chips', {}, chosen.label.map(chip)));
}

/** Of what a job makes what, and for whom: `m0, m1 and 2 more · mnist.tar · ada`. */
function made({ members, dataset, owner }) {
  const [first, second, ...more] = members;
  const named = [first, second].filter(Boolean).join(', ') + (more.length ? ` and ${more.length} more` : '');
  return [named, dataset, owner].filter(Boolean).join(' · ');
}

function row(job, chosen, again) {
  const running = !hasEnded(job.state) && job.progress;
  const words = running ? [inWords(job.progress, { time: false }), whole(job.progress)].filter(Boolean).join(' · in all ') : job.error?.detail ?? (job.state === 'queued' ? 'waits for a worker' : null);
  const took = job.started_at && hasEnded(job.state) ? duration(between(job.started_at, job.finished_at)) : job.started_at ? null : '–';
  const byLabel = (name, value) => link(['jobs'], { state: chosen.state, label: [`${name}=${value}`] });
  return h('tr.row', {},
    h('td', {}, h('a.name', { href: link(['jobs', job.id]), title: job.id }, job.name ?? shortId(job.id)), h('div.small.muted.line', { title: made(job) }, made(job)), labels(job.labels, byLabel)),
    h('td', {}, badge(job.state), job.attempt > 1 ? h('span.muted.small', {}, ` attempt ${job.attempt}`) : null),
    h('td.wide.progress', {}, segments(job.state, job.progress), words ? h('div.small.muted.line', { title: words }, words) : null),
    h('td', { 'data-label': 'Created' }, time(job.created_at)),
    h('td.number', { 'data-label': 'Took' }, took ?? h('span.muted', {}, 'running')),
    h('td.number', {}, canWrite() ? action(job, again) : null));
}

function action(job, again) {
  const name = job.name ?? shortId(job.id);
  if (hasEnded(job.state)) {
    const remove = () => confirm(`Delete ${name}?`, 'Its history and its results are deleted with it.', 'Delete', async () => { await send('DELETE', v1('jobs', job.id)); again(); });
    return h('button.button.quiet.tight', { type: 'button', onclick: remove, 'aria-label': `Delete ${name}` }, 'Delete');
  }
  const cancel = () => confirm(`Cancel ${name}?`, 'It stops where it is. It can be run again later, from its last checkpoint.', 'Cancel the job', async () => {
    await send('POST', v1('jobs', job.id, 'cancel'));
    toast('The job is being cancelled.');
    again();
  });
  return h('button.button.quiet.tight', { type: 'button', onclick: cancel, 'aria-label': `Cancel ${name}` }, 'Cancel');
}

function nothing(chosen) {
  if (chosen.state || chosen.label.length || chosen.after) {
    return empty('No job matches', h('p', {}, 'No job has this state and these labels.'), h('a.button', { href: '#/jobs' }, 'Show all jobs'));
  }
  return empty('No jobs yet',
    h('p', {}, 'A job fuses several trained networks into one. Upload the members and a dataset, then queue one.'),
    canWrite() ? h('div.actions', {}, h('a.button', { href: '#/checkpoints' }, 'Upload members'), h('a.button.primary', { href: '#/new' }, 'New job')) : h('p', {}, 'That needs a key of scope “write”.'));
}

function paging(chosen, page) {
  const to = (after, text) => h('a.button.tight', { href: link(['jobs'], { state: chosen.state, label: chosen.label, after }) }, text);
  return [chosen.after ? to(null, 'Newest') : null, page.has_more ? to(page.next_after, 'Older') : null];
}

// One comparison: its runs as a grid, and its report.

import { h, fill, setPart } from './dom.js';
import { get, send, v1 } from './api.js';
import { badge, card, confirm, crumbs, facts, fail, head, time } from './ui.js';
import { link, go } from './router.js';
import { poll } from './poll.js';
import { percent } from './format.js';
import { hasEnded } from './events.js';
import { standing, write } from './measures.js';
import { canWrite } from './session.js';

const INTERVAL = 2500;

/** How many runs have ended, in words and as a bar. */
export function tally(counts) {
  const ended = counts.succeeded + counts.failed + counts.cancelled + counts.deleted;
  const parts = ['running', 'queued', 'failed', 'cancelled', 'deleted'].filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`);
  return [setPart(h('div.bar', {}, h('i')), counts.total ? ended / counts.total : 0), h('div.small.muted', {}, [`${ended} of ${counts.total} ended`, ...parts].join(', '))];
}

/** Shows the comparison of the address until all of its runs have ended. */
export function show(root, { parts: [, id] }, signal) {
  const slot = h('div.slot');
  fill(root, slot);
  let reported = -1;
  let results = new Map();
  const refresh = async () => {
    const comparison = await get(v1('comparisons', id), { signal });
    if (comparison.counts.succeeded !== reported) {
      results = await read(id, signal);
      reported = comparison.counts.succeeded;
    }
    document.title = `${comparison.state} · ${comparison.title} · engraft`;
    fill(slot, page(comparison, results, refresh));
    return !hasEnded(comparison.state);
  };
  poll(refresh, INTERVAL, signal, (error) => fail(slot, error, signal));
}

async function read(id, signal) {
  const report = await get(v1('comparisons', id, 'report'), { signal });
  return new Map(report.runs.filter((run) => run.report).map((run) => [place(run), run.report]));
}

function place({ ensemble, method, target, seed }) {
  return JSON.stringify([ensemble, method, target, seed]);
}

function page(comparison, results, refresh) {
  const ended = hasEnded(comparison.state);
  const cancel = () => confirm('Cancel this comparison?', 'The runs that have not ended are cancelled; the others keep their results.', 'Cancel the runs', async () => { await send('POST', v1('comparisons', comparison.id, 'cancel')); await refresh(); });
  const remove = async () => {
    const done = await confirm('Delete this comparison?', 'Its jobs and their results are deleted with it.', 'Delete', () => send('DELETE', v1('comparisons', comparison.id)));
    if (done) go('#/comparisons');
  };
  const change = !canWrite() ? null : ended ? h('button.button.danger', { type: 'button', onclick: remove }, 'Delete') : h('button.button.danger', { type: 'button', onclick: cancel }, 'Cancel');
  const report = h('a.button', { href: v1('comparisons', comparison.id, 'report.html'), target: '_blank' }, 'Report');
  return [
    crumbs(['Comparisons', '#/comparisons']),
    head([comparison.title, badge(comparison.state)], report, change),
    card('Runs', grid(comparison.runs, results), { flush: true, note: 'mean over seeds of the fused network, ± the standard deviation between them; each badge is a run' }),
    card('Comparison', [h('div.stack', {}, tally(comparison.counts)), facts([['Id', h('code', {}, comparison.id)], ['Created', time(comparison.created_at)], ['Form', comparison.quick ? 'quick' : null]])]),
  ];
}

/** The runs by method, with a column for each ensemble and target. */
function grid(runs, results) {
  const distinct = (of) => [...new Set(runs.map(of))];
  const columns = distinct((run) => JSON.stringify([run.ensemble, run.target])).map((text) => JSON.parse(text));
  const cell = (method, [ensemble, target]) => {
    const here = runs.filter((run) => run.method === method && run.ensemble === ensemble && run.target === target);
    return h('td', { 'data-label': `${ensemble}, ${target}` }, h('div.cell', {}, mean(here, results), h('span.chips', {}, here.map(chip))));
  };
  return h('div.scroll', {}, h('table.grid-of-runs', {},
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Method'), columns.map(([ensemble, target]) => h('th', { scope: 'col' }, `${ensemble}, ${target}`)))),
    h('tbody', {}, distinct((run) => run.method).map((method) => h('tr', {}, h('th', { scope: 'row' }, method), columns.map((column) => cell(method, column)))))));
}

function chip(run) {
  const text = `seed ${run.seed}`;
  if (!run.job) return h('span.state', {}, `${text}, deleted`);
  return h(`a.state.${run.state}`, { href: link(['jobs', run.job]), title: `${run.state}` }, text);
}

function mean(runs, results) {
  const known = runs.map((run) => results.get(place(run))).filter(Boolean).map((report) => {
    const fused = report.candidates.find(({ kind }) => kind === 'fused');
    return fused ? standing(fused, report.examples) : null;
  }).filter(Boolean);
  if (known.length === 0) return h('span.muted', {}, '–');
  const { measure } = known[0];
  const average = known.reduce((sum, { value }) => sum + value, 0) / known.length;
  const spread = known.length > 1 ? Math.sqrt(known.reduce((sum, { value }) => sum + (value - average) ** 2, 0) / (known.length - 1)) : null;
  return h('span', {}, h('strong', {}, write(measure, average)), spread === null ? null : h('span.muted', {}, ` ± ${measure.share ? percent(spread) : write(measure, spread)}`));
}

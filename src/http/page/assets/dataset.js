// One dataset: some of its examples, its classes and its splits.

import { h, s, fill } from './dom.js';
import { get, send, v1 } from './api.js';
import { badge, card, confirm, copyButton, crumbs, facts, fail, head, labels, problem, time } from './ui.js';
import { bytes, count, shape, short } from './format.js';
import { go, link } from './router.js';
import { poll } from './poll.js';
import { canWrite } from './session.js';

const INTERVAL = 1500;
const MOST_CLASSES = 100;
const ORDER = ['train', 'validation', 'test'];

/** The splits of a dataset, in the order of their use. */
function inOrder(known) {
  return Object.entries(known.splits).sort(([a], [b]) => ORDER.indexOf(a) - ORDER.indexOf(b));
}

/** Shows the dataset of the address, and waits for it where it is still being read. */
export function show(root, { parts: [, name] }, signal) {
  const refresh = async () => {
    const dataset = await get(`${v1('datasets', name)}?preview=true`, { signal });
    page(root, dataset);
    return dataset.state === 'validating';
  };
  poll(refresh, INTERVAL, signal, (error) => fail(root, error, signal));
}

function page(root, dataset) {
  const { name, state, facts: known } = dataset;
  document.title = `${name} · engraft`;
  const remove = async () => {
    const done = await confirm(`Delete ${name}?`, 'The file is deleted. Jobs that have read it keep their results.', 'Delete', () => send('DELETE', v1('datasets', name)));
    if (done) go('#/datasets');
  };
  const actions = [
    h('a.button', { href: v1('datasets', name, 'content'), download: name }, 'Download'),
    canWrite() && state === 'ready' ? h('a.button', { href: link(['new'], { dataset: name }) }, 'Use in a job') : null,
    canWrite() ? h('button.button.danger', { type: 'button', onclick: remove }, 'Delete') : null,
  ];
  fill(root, crumbs(['Datasets', '#/datasets']), head([name, badge(state)], ...actions),
    dataset.error ? problem(dataset.error) : null,
    state === 'validating' ? h('p.muted', {}, 'It is being read through. What it holds is shown here as soon as that is known.') : null,
    h('div.columns', {},
      h('div.main', {}, known ? [notes(known), preview(known), classes(known)] : null),
      h('div.aside', {}, card('File', facts([
        ['Id', h('code', {}, dataset.id)],
        ['Format', known?.format],
        ['Size', bytes(dataset.bytes)],
        ['Example', known ? shape(known.example_shape) : null],
        ['Classes', known?.classes || null],
        ['Labels are', known?.label_form],
        ['Mean', known?.mean.length ? known.mean.map(short).join(', ') : null],
        ['Deviation', known?.std.length ? known.std.map(short).join(', ') : null],
        ['Elements', known?.byte_elements === true ? 'bytes, divided by 255' : null],
        ['Uploaded', time(dataset.created_at)],
        ['SHA-256', [h('code', {}, dataset.sha256), ' ', copyButton(() => dataset.sha256)]],
        ['Labels', labels(dataset.labels)],
      ])), known ? splits(known) : null)));
}

function notes(known) {
  const skipped = Object.entries(known.skipped ?? {}).map(([why, number]) => `${number} ${number === 1 ? 'file was' : 'files were'} passed over: ${why}`);
  const all = [...known.notes, ...skipped];
  return all.length ? h('div.notice.warn', {}, all.length === 1 ? all[0] : h('ul', {}, all.map((note) => h('li', {}, note)))) : null;
}

function splits(known) {
  return card('Splits', h('table', {}, h('tbody', {}, inOrder(known).map(([name, split]) => h('tr', {}, h('td', {}, name), h('td.number', {}, split.examples.toLocaleString('en')))))), { flush: true });
}

function className(known, label) {
  return known.class_names?.[label] ?? String(label);
}

function preview(known) {
  if (!known.preview?.length) return null;
  const said = (example) => (example.label === null ? example.targets?.map(short).join(', ') ?? '' : className(known, example.label));
  const entry = (example) => h('figure.example', {},
    example.image ? h('img', { src: example.image, alt: `Example ${example.index}`, width: 72, height: 72 }) : h('code.small', {}, (example.values ?? []).map(short).join(' ')),
    h('figcaption', {}, h('strong', {}, said(example)), h('span.small.muted', {}, ` #${example.index}`)));
  return card('Examples', h('div.examples', {}, known.preview.map(entry)), { note: 'of the train split, evenly spread' });
}

/** Examples of each class, a bar for each; the splits side by side. */
function classes(known) {
  const names = inOrder(known).filter(([, split]) => split.per_class.length).map(([name]) => name);
  if (names.length === 0 || known.classes === 0) return null;
  const shown = Math.min(known.classes, MOST_CLASSES);
  const most = Math.max(...names.flatMap((name) => known.splits[name].per_class));
  const bar = (number, index) => s('svg.share.thin', { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, s(`rect.point.series-${index + 1}`, { width: most ? (number / most) * 100 : 0, height: 6 }));
  const row = (label) => h('tr', {}, h('td', {}, className(known, label)), names.map((name, index) => [h('td.bars', {}, bar(known.splits[name].per_class[label], index)), h('td.number', {}, count(known.splits[name].per_class[label]))]));
  const rest = known.classes - shown;
  return card('Classes', [
    h('div.scroll', {}, h('table.classes', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Class'), names.map((name) => [h('th', { scope: 'col' }, name), h('th')]))), h('tbody', {}, Array.from({ length: shown }, (_, label) => row(label))))),
    rest > 0 ? h('p.pad.muted', {}, `and ${rest} more`) : null,
  ], { flush: true });
}

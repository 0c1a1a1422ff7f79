// The lists of checkpoints and of datasets, and the uploads to them.

import { h, fill, reconcile } from './dom.js';
import { get, send, v1 } from './api.js';
import { badge, card, confirm, empty, fail, head, labels, time } from './ui.js';
import { bytes, count, percent, shape } from './format.js';
import { link } from './router.js';
import { poll } from './poll.js';
import { canWrite } from './session.js';
import { dropzone } from './dropzone.js';
import { transfers } from './uploads.js';

const INTERVAL = 3000;

const CHECKPOINTS = {
  path: 'checkpoints', kind: 'checkpoint', title: 'Checkpoints',
  hint: 'safetensors, files of torch.save, npz, ONNX, or a tar of shards',
  columns: ['Name', 'Parameters', 'Size', 'Uploaded', ''],
  cells: (file) => [h('td.number', { 'data-label': 'Parameters' }, count(file.parameters))],
  none: 'Checkpoints are the trained networks that a job fuses. Drop them above, or upload them with curl:',
  command: 'curl -T m0.safetensors',
};

const DATASETS = {
  path: 'datasets', kind: 'dataset', title: 'Datasets',
  hint: 'npz, npy, safetensors, MNIST’s or CIFAR’s files, Parquet, or an archive of images in class folders',
  columns: ['Name', 'State', 'Example', 'Classes', 'Examples', 'Size', 'Uploaded', ''],
  cells: ({ state, facts }) => [
    h('td', {}, badge(state)),
    h('td.mono.nowrap', { 'data-label': 'Example' }, facts ? shape(facts.example_shape) : '–'),
    h('td.number', { 'data-label': 'Classes' }, facts ? facts.classes || '–' : '–'),
    h('td.wide.small', {}, facts ? Object.entries(facts.splits).sort(([a], [b]) => order(a) - order(b)).map(([name, split]) => `${count(split.examples)} ${name}`).join(', ') : '–'),
  ],
  none: 'A dataset calibrates, trains and measures the fused network. Drop one above, or upload it with curl:',
  command: 'curl -T mnist.tar',
};

function order(split) {
  return ['train', 'validation', 'test'].indexOf(split);
}

/** Shows the checkpoints. */
export function checkpoints(root, place, signal) {
  show(CHECKPOINTS, root, place, signal);
}

/** Shows the datasets. */
export function datasets(root, place, signal) {
  show(DATASETS, root, place, signal);
}

function show(what, root, { query }, signal) {
  const after = query.get('after');
  const list = h('div.card', { 'aria-busy': 'true' });
  const unfinished = h('div');
  const pages = h('div.pages');
  fill(root, head(what.title), canWrite() ? dropzone(what.path, what.hint, signal) : null, unfinished, list, pages);
  const numeric = new Set(['Parameters', 'Classes', 'Size', '']);
  const body = h('tbody');
  const table = h('table.reflow', {}, h('thead', {}, h('tr', {}, what.columns.map((name) => h(numeric.has(name) ? 'th.number' : 'th', { scope: 'col' }, name)))), body);
  const again = () => refresh().catch((error) => fail(list, error, signal));
  const refresh = async () => {
    const [page, uploads] = await Promise.all([
      get(`/v1/${what.path}?${new URLSearchParams({ limit: '50', ...(after ? { after } : {}) })}`, { signal }),
      get('/v1/uploads', { signal }),
    ]);
    list.removeAttribute('aria-busy');
    if (page.data.length === 0) fill(list, empty(`No ${what.path} yet`, h('p', {}, what.none), h('code', {}, `${what.command} ${location.origin}/v1/${what.path}/`)));
    else if (!table.isConnected) fill(list, table);
    reconcile(body, page.data, ({ id }) => id, (file) => row(what, file, again));
    const cut = uploads.data.filter((upload) => upload.kind === what.kind && !transfers.list.some((one) => one.kind === what.path && one.name === upload.name && one.state !== 'failed'));
    fill(unfinished, cut.length ? interrupted(cut, again) : null);
    fill(pages, after ? h('a.button.tight', { href: link([what.path]) }, 'Newest') : null, page.has_more ? h('a.button.tight', { href: link([what.path], { after: page.next_after }) }, 'Older') : null);
  };
  transfers.addEventListener('done', ({ detail }) => { if (detail.kind === what.path) again(); }, { signal });
  poll(refresh, INTERVAL, signal, (error) => fail(list, error, signal));
}

function row(what, file, again) {
  const remove = () => confirm(`Delete ${file.name}?`, 'The file is deleted. Jobs that have read it keep their results.', 'Delete', async () => { await send('DELETE', v1(what.path, file.name)); await again(); });
  return h('tr.row', {},
    h('td', {}, h('a.name', { href: link([what.path, file.name]) }, file.name), labels(file.labels)),
    what.cells(file),
    h('td.number', { 'data-label': 'Size' }, bytes(file.bytes)),
    h('td', { 'data-label': 'Uploaded' }, time(file.created_at)),
    h('td.number', {}, canWrite() ? h('button.button.quiet.tight', { type: 'button', onclick: remove, 'aria-label': `Delete ${file.name}` }, 'Delete') : null));
}

/** Uploads that were cut and that nobody continues here. */
function interrupted(uploads, again) {
  const entry = (upload) => {
    const share = upload.bytes ? `${percent(upload.offset / upload.bytes, 0)} of ${bytes(upload.bytes)}` : bytes(upload.offset);
    const remove = () => confirm(`Delete what has arrived of ${upload.name}?`, 'The file has to be uploaded from its beginning then.', 'Delete', async () => { await send('DELETE', v1('uploads', upload.id)); await again(); });
    return h('li', {}, h('div.upload', {}, h('span.grow.name', {}, upload.name), h('span.small.muted', {}, share), canWrite() ? h('button.button.quiet.tight', { type: 'button', onclick: remove, 'aria-label': `Delete the upload of ${upload.name}` }, 'Delete') : null));
  };
  return card('Unfinished uploads', h('ul.uploads', {}, uploads.map(entry)), { note: 'choose the same file again: it goes on where it was cut' });
}

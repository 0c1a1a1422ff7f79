// One checkpoint: what network it may be, and its tensors.

import { h, fill } from './dom.js';
import { get, send, v1 } from './api.js';
import { card, confirm, copyButton, crumbs, facts, fail, head, labels, time } from './ui.js';
import { bytes, count, shape } from './format.js';
import { go, link } from './router.js';
import { canWrite } from './session.js';

/** Shows the checkpoint of the address. */
export async function show(root, { parts: [, name] }, signal) {
  try {
    page(root, await get(v1('checkpoints', name), { signal }));
  } catch (error) {
    fail(root, error, signal);
  }
}

function page(root, checkpoint) {
  const { name, architecture, tensors, shards = [] } = checkpoint;
  document.title = `${name} · engraft`;
  const remove = async () => {
    const done = await confirm(`Delete ${name}?`, 'The file is deleted. Jobs that have read it keep their results.', 'Delete', () => send('DELETE', v1('checkpoints', name)));
    if (done) go('#/checkpoints');
  };
  const actions = [
    h('a.button', { href: v1('checkpoints', name, 'content'), download: name }, 'Download'),
    canWrite() ? h('a.button', { href: link(['new'], { member: name }) }, 'Fuse') : null,
    canWrite() ? h('button.button.danger', { type: 'button', onclick: remove }, 'Delete') : null,
  ];
  fill(root, crumbs(['Checkpoints', '#/checkpoints']), head(name, ...actions),
    h('div.columns', {},
      h('div.main', {}, card('Network', network(architecture)), architecture.candidates.length > 1 ? candidates(architecture.candidates) : null, tensors.length ? tensorTable(tensors) : null),
      h('div.aside', {},
        card('File', facts([
          ['Id', h('code', {}, checkpoint.id)],
          ['Size', bytes(checkpoint.bytes)],
          ['Parameters', checkpoint.parameters.toLocaleString('en')],
          ['Uploaded', time(checkpoint.created_at)],
          ['SHA-256', [h('code', {}, checkpoint.sha256), ' ', copyButton(() => checkpoint.sha256)]],
          ['Labels', labels(checkpoint.labels)],
        ])),
        architecture.groups.length ? groups(architecture.groups) : null,
        shards.length ? card('Shards', h('ul.files', {}, shards.map((shard) => h('li', {}, shard.name, h('span.muted.small.size', {}, `${shard.tensors} tensors`))))) : null)));
}

function network(architecture) {
  if (architecture.unrecognised) return h('div.notice.warn', {}, h('strong', {}, 'No network is recognised'), architecture.unrecognised);
  const open = architecture.open.map(({ setting, values }) => h('li', {}, h('code', {}, setting), `: ${values.join(', ')}`));
  return [
    facts([
      ['Family', architecture.family],
      ['Evidence', architecture.evidence ? `${architecture.evidence}: ${architecture.why}` : null],
      ['Input', architecture.input_shape ? shape(architecture.input_shape) : null],
      ['Parameters', architecture.costs ? count(architecture.costs.parameters) : null],
      ['MACs', architecture.costs ? count(architecture.costs.macs) : null],
      ['Assumed', architecture.assumptions.length ? architecture.assumptions.join('; ') : null],
      ['No groups', architecture.no_groups],
    ]),
    open.length ? h('div.notice.warn.spaced', {}, h('strong', {}, 'Names and shapes leave open'), h('ul', {}, open), h('span.small', {}, 'A labelled dataset or a reference decides when the job runs; the job itself can say it, too.')) : null,
  ];
}

function groups(entries) {
  const rows = entries.map((group) => h('tr', {}, h('td.mono', {}, group.name), h('td.number', {}, count(group.width))));
  return card('Units', h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Group'), h('th.number', { scope: 'col' }, 'Units'))), h('tbody', {}, rows)), { flush: true, note: 'kept or dropped together' });
}

function candidates(entries) {
  const row = (one) => h('tr', {}, h('td', {}, one.family), h('td.mono.nowrap', {}, shape(one.input_shape)), h('td.wide.small', {}, Object.entries(one.settings).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(', ')));
  return card('Networks that fit', h('details.pad', {}, h('summary', {}, `${entries.length} networks, the most usual first`), h('table.reflow', {}, h('thead', {}, h('tr', {}, ['Family', 'Input', 'Settings'].map((title) => h('th', { scope: 'col' }, title)))), h('tbody', {}, entries.map(row)))), { flush: true });
}

function tensorTable(tensors) {
  const rows = tensors.map((tensor) => h('tr', {}, h('td.mono', {}, tensor.name), h('td.mono.nowrap', {}, shape(tensor.shape)), h('td.mono.number', {}, tensor.dtype)));
  return card('Tensors', h('table.tensors', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Name'), h('th', { scope: 'col' }, 'Shape'), h('th.number', { scope: 'col' }, 'Type'))), h('tbody', {}, rows)), { flush: true, note: `${tensors.length}` });
}

// The files of a job that has succeeded.

import { h } from './dom.js';
import { bytes } from './format.js';
import { copyButton } from './ui.js';

/** The forms in which a model leaves; `what` is for whom. */
const FORMATS = [
  { query: '', name: 'safetensors', what: 'the members’ own tensor names' },
  { query: '?format=pt', name: 'pt', what: 'for torch.load' },
  { query: '?format=onnx', name: 'onnx', what: 'for onnxruntime' },
  { query: '?format=onnx&normalize=true', name: 'onnx, normalising', what: 'takes inputs as they are' },
  { query: '?format=py', name: 'py', what: 'its PyTorch module' },
  { query: '?format=tar', name: 'tar', what: 'shards with their index' },
];

/** What else a job leaves, by the name of the artifact. */
const OTHERS = { 'report.html': 'report, a page', report: 'report, JSON', card: 'model card', provenance: 'where each unit comes from', architecture: 'its graph' };

/** Links to every file, and the digest of the model. */
export function downloads(job) {
  const model = job.artifacts.find(({ name }) => name === 'model');
  const others = Object.entries(OTHERS).map(([name, what]) => ({ what, artifact: job.artifacts.find((one) => one.name === name) })).filter(({ artifact }) => artifact);
  return [
    model ? h('ul.files', {}, FORMATS.map(({ query, name, what }) => h('li', {}, h('a', { href: `${model.href}${query}`, download: true }, name), h('span.muted.small', {}, what), query ? null : h('span.muted.small.size', {}, bytes(model.bytes))))) : null,
    h('ul.files.rest', {}, others.map(({ what, artifact }) => h('li', {}, h('a', artifact.name === 'report.html' ? { href: artifact.href, target: '_blank' } : { href: artifact.href, download: true }, what), h('span.muted.small.size', {}, bytes(artifact.bytes))))),
    model ? h('p.digest.small.muted', {}, 'SHA-256 ', h('code', {}, model.sha256), ' ', copyButton(() => model.sha256)) : null,
  ];
}

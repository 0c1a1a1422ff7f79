// Where files are dropped, and how far those are that were.

import { h, reconcile, setPart } from './dom.js';
import { transfers } from './uploads.js';
import { bytes, percent } from './format.js';
import { problem } from './ui.js';

/** A place for files of `kind`, with the uploads that have begun there. */
export function dropzone(kind, hint, signal) {
  const input = h('input', { type: 'file', multiple: true, hidden: true, onchange: () => { take(input.files); input.value = ''; } });
  const button = h('button.button', { type: 'button', onclick: () => input.click() }, 'Choose files');
  const list = h('ul.uploads');
  const zone = h('div.dropzone', {}, h('p', {}, h('strong', {}, 'Drop files here'), h('span.muted', {}, ` ${hint}`)), button, input);
  const take = (files) => { for (const file of files) transfers.add(kind, file); };
  const over = (event) => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    zone.classList.add('over');
  };
  // The whole page takes files, so that one that misses the place does not open in the place of the page.
  document.addEventListener('dragover', over, { signal });
  document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) zone.classList.remove('over'); }, { signal });
  document.addEventListener('drop', (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    zone.classList.remove('over');
    take(event.dataTransfer.files);
  }, { signal });
  const draw = () => {
    const own = transfers.list.filter((one) => one.kind === kind && one.state !== 'done');
    reconcile(list, own.map(shown), ({ name }) => name, (one) => entry(one, kind));
    own.forEach((one, index) => showSent(list.children[index], one));
  };
  transfers.addEventListener('change', draw, { signal });
  draw();
  return h('div', {}, zone, list);
}

/** What of an upload makes its entry another: not how far it is, so that its buttons stay where they are. */
function shown({ name, state, error }) {
  return { name, state, error: error ? { title: error.title, detail: error.detail, errors: error.errors } : null };
}

function entry({ name, state, error }, kind) {
  const own = () => transfers.list.find((one) => one.kind === kind && one.name === name);
  const button = (caption, act) => h('button.button.tight', { type: 'button', onclick: () => act(own()), 'aria-label': `${caption} the upload of ${name}` }, caption);
  return h('li', {},
    h('div.upload', {}, h('span.grow.name', {}, name), h('span.sent.small.muted.nowrap'),
      state === 'running' || state === 'waiting' ? button('Pause', (one) => transfers.pause(one)) : null,
      state === 'paused' ? button('Resume', (one) => transfers.resume(one)) : null,
      state === 'failed' ? button('Try again', (one) => transfers.resume(one)) : null,
      button('Remove', (one) => transfers.remove(one))),
    state === 'failed' ? problem(Object.assign(new Error(error.detail), error)) : h('div.bar', {}, h('i')));
}

function showSent(element, { size, sent, state }) {
  const share = size ? sent / size : 0;
  const far = `${percent(share, 0)} of ${bytes(size)}`;
  element.querySelector('.sent').textContent = { waiting: 'waits', running: far, paused: `paused at ${far}`, failed: 'refused' }[state];
  const bar = element.querySelector('.bar');
  if (bar) setPart(bar, share);
}

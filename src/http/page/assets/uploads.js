// Uploads on their way: two at a time, each going on where it was cut.

import { h, fill, setPart } from './dom.js';
import { Problem, connection, send, v1 } from './api.js';
import { sleep } from './poll.js';
import { percent } from './format.js';

const AT_ONCE = 2;
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 15_000;
const LONGEST_NAME = 128;

/** Fires `change` whenever an upload goes on, and `done` with one that has ended. */
class Transfers extends EventTarget {
  list = [];

  /** Uploads `file` to the checkpoints or the datasets, under its own name as far as the server takes its characters. */
  add(kind, file) {
    const name = file.name.replace(/[^A-Za-z0-9._-]+/g, '-').slice(-LONGEST_NAME);
    this.list = this.list.filter((other) => other.kind !== kind || other.name !== name || isActive(other));
    if (this.list.some((other) => other.kind === kind && other.name === name)) return;
    this.list.push({ kind, file, name, size: file.size, sent: 0, state: 'waiting', error: null, stop: null });
    this.next();
  }

  pause(transfer) {
    transfer.state = 'paused';
    transfer.stop?.abort();
    this.next();
  }

  resume(transfer) {
    transfer.state = 'waiting';
    transfer.error = null;
    this.next();
  }

  remove(transfer) {
    this.list = this.list.filter((other) => other !== transfer);
    transfer.stop?.abort();
    this.next();
  }

  changed() {
    this.dispatchEvent(new Event('change'));
  }

  next() {
    const running = this.list.filter(({ state }) => state === 'running').length;
    for (const transfer of this.list.filter(({ state }) => state === 'waiting').slice(0, Math.max(0, AT_ONCE - running))) {
      transfer.state = 'running';
      run(transfer).then(() => this.next());
    }
    this.changed();
  }
}

export const transfers = new Transfers();

function isActive({ state }) {
  return state === 'waiting' || state === 'running' || state === 'paused';
}

async function run(transfer) {
  transfer.stop = new AbortController();
  const { signal } = transfer.stop;
  let pause = FIRST_PAUSE;
  while (!signal.aborted) {
    const before = transfer.sent;
    try {
      transfer.sent = await offset(transfer, signal);
      await put(transfer, signal);
      transfer.state = 'done';
      transfer.sent = transfer.size;
      transfers.dispatchEvent(new CustomEvent('done', { detail: transfer }));
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && error.code !== 'upload_offset_mismatch' && error.code !== 'upload_in_progress' && error.status < 500) {
        transfer.state = 'failed';
        transfer.error = error;
        return;
      }
      pause = transfer.sent > before ? FIRST_PAUSE : Math.min(pause * 2, LONGEST_PAUSE);
    }
    transfers.changed();
    await sleep(pause, signal);
  }
}

/** How many bytes of the file the server has; 0 where it has none, and where it has another file of this name, which it says itself. */
async function offset({ kind, name }, signal) {
  try {
    const answer = await send('HEAD', v1(kind, name), { signal });
    return answer.status === 204 ? Number(answer.headers.get('upload-offset')) : 0;
  } catch (error) {
    if (error instanceof Problem && error.status === 404) return 0;
    throw error;
  }
}

/** Sends what is missing. Only XMLHttpRequest tells how much has gone. */
function put(transfer, signal) {
  const { kind, name, file, size, sent: start } = transfer;
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open('PUT', v1(kind, name));
    if (start > 0) request.setRequestHeader('content-range', `bytes ${start}-${size - 1}/${size}`);
    request.upload.onprogress = ({ loaded }) => {
      transfer.sent = start + loaded;
      transfers.changed();
    };
    request.onload = () => {
      connection.report(true);
      if (request.status < 400) resolve();
      else reject(new Problem(parsed(request.responseText), request.status));
    };
    request.onerror = () => reject(new Error('The connection was lost.'));
    request.onabort = () => reject(new Error('The upload was stopped.'));
    signal.addEventListener('abort', () => request.abort(), { once: true });
    request.send(start > 0 ? file.slice(start) : file);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

/** Shows below `header` how far all uploads are, while there are any. */
export function showTransfers(header) {
  const bar = h('div.transfers', { hidden: true, role: 'status' });
  header.append(bar);
  transfers.addEventListener('change', () => {
    const active = transfers.list.filter(({ state }) => state === 'running' || state === 'waiting');
    bar.hidden = active.length === 0;
    if (active.length === 0) return;
    const share = active.reduce((sum, { sent }) => sum + sent, 0) / Math.max(1, active.reduce((sum, { size }) => sum + size, 0));
    fill(bar, h('span.small', {}, `${active.length} ${active.length === 1 ? 'upload' : 'uploads'}, ${percent(share, 0)}`), setPart(h('div.bar', {}, h('i')), share));
  });
  window.addEventListener('beforeunload', (event) => {
    if (transfers.list.some(({ state }) => state === 'running')) event.preventDefault();
  });
}

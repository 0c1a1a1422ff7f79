// Looks again and again, less often while the server does not answer, and not at all while nobody sees the page.

import { Unreachable } from './api.js';

const LONGEST_PAUSE = 10_000;

/**
 * Calls `task` now and then every `interval` milliseconds, until `signal` is aborted or `task` returns `false`. Errors other
 * than an absent server go to `failed`, and end it.
 */
export async function poll(task, interval, signal, failed) {
  let pause = interval;
  while (!signal.aborted) {
    try {
      if ((await task()) === false) return;
      pause = interval;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Unreachable)) {
        failed(error);
        return;
      }
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
    await sleep(pause, signal);
    if (document.hidden) await visible(signal);
  }
}

/** Resolves after `milliseconds`, or when `signal` is aborted. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener('abort', () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}

function visible(signal) {
  return new Promise((resolve) => {
    document.addEventListener('visibilitychange', resolve, { once: true, signal });
    signal.addEventListener('abort', resolve, { once: true });
  });
}

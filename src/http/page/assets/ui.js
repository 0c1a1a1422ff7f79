// Parts that several pages share.

import { h, fill } from './dom.js';
import { Problem, Unreachable } from './api.js';
import { ago, moment } from './format.js';
import { inline } from './prose.js';

/** The head of a page. */
export function head(title, ...actions) {
  return h('div.head', {}, h('h1', { tabindex: -1 }, title), actions.length ? h('div.actions', {}, actions) : null);
}

/** Where a page stands: `Jobs /`. */
export function crumbs(...links) {
  return h('nav.crumbs', { 'aria-label': 'Breadcrumb' }, links.map(([text, href]) => [h('a', { href }, text), h('span', { 'aria-hidden': 'true' }, '/')]));
}

/** A part of a page with its own heading. */
export function card(title, body, { actions = [], flush = false, note = null } = {}) {
  return h('section.card', {},
    h('header', {}, h('h2', {}, title), note ? h('span.muted.small', {}, note) : null, actions.length ? h('div.actions', {}, actions) : null),
    h(flush ? 'div.flush' : 'div.body', {}, body));
}

/** A state as a badge. */
export function badge(state) {
  return h(`span.state.${state}`, {}, state);
}

/** A time as how long ago it was; the exact one is shown on hover. */
export function time(value) {
  return value ? h('time.nowrap', { datetime: value, title: moment(value) }, ago(value)) : h('span.muted', {}, '–');
}

/** Labels; each leads to what else has it where `href` is given. */
export function labels(entries, href = null) {
  const all = Object.entries(entries ?? {});
  const chip = ([name, value]) => h(href ? 'a.chip' : 'span.chip', href ? { href: href(name, value) } : {}, `${name}=${value}`);
  return all.length ? h('span.chips', {}, all.map(chip)) : null;
}

/** Names and values. */
export function facts(entries) {
  const given = entries.filter(([, value]) => value !== null && value !== undefined && value !== '');
  return h('dl.facts', {}, given.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]));
}

/** What a list says that has nothing in it, and what to do. */
export function empty(title, ...rest) {
  return h('div.empty', {}, h('h2', {}, title), rest);
}

/** A problem in its own words. */
export function problem(error) {
  const title = error.title ?? (error instanceof Unreachable ? 'The server does not answer' : 'This page has failed');
  const detail = error.detail ?? error.message;
  const faults = (error.errors ?? []).map((fault) => h('li', {}, h('code', {}, fault.pointer), ' ', inline(fault.detail)));
  return h('div.notice.bad', { role: 'alert' },
    h('strong', {}, title), inline(detail),
    faults.length ? h('ul', {}, faults) : null,
    error.requestId ? h('span.small', {}, `Request ${error.requestId}`) : null);
}

/** Shows `error` in the place of a page, unless the page was left. */
export function fail(root, error, signal) {
  if (signal?.aborted) return;
  if (error instanceof Problem && error.status === 401) return;
  if (!(error instanceof Problem || error instanceof Unreachable)) reportError(error);
  fill(root, problem(error));
}

/** A short message that goes away. */
export function toast(text) {
  const element = h('div.toast', {}, text);
  document.getElementById('toasts').append(element);
  setTimeout(() => element.remove(), 5000);
}

/** A button that copies `text()`. */
export function copyButton(text, caption = 'Copy') {
  const button = h('button.button.tight', { type: 'button' }, caption);
  button.addEventListener('click', async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = caption; }, 1500);
  });
  return button;
}

/** Code with a button that copies it. */
export function code(text) {
  const pre = h('pre', { tabindex: 0 }, text);
  return h('div.code', {}, pre, copyButton(() => text));
}

/** Pages of one place: entries are `[title, content]`; the content is made when it is first shown. */
export function tabs(label, entries) {
  const panel = h('div.panel', { role: 'tabpanel' });
  const made = new Map();
  const select = (index, focus) => {
    if (!made.has(index)) made.set(index, entries[index][1]());
    fill(panel, made.get(index));
    buttons.forEach((button, at) => {
      button.setAttribute('aria-selected', at === index);
      button.tabIndex = at === index ? 0 : -1;
    });
    if (focus) buttons[index].focus();
  };
  const move = (event, index) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) select((index + step + entries.length) % entries.length, true);
  };
  const buttons = entries.map(([title], index) => h('button', { type: 'button', role: 'tab', onclick: () => select(index), onkeydown: (event) => move(event, index) }, title));
  select(0);
  return h('div', {}, h('div.tabs', { role: 'tablist', 'aria-label': label }, buttons), panel);
}

/**
 * Asks before `act` is done. What goes wrong stands in the dialog; Escape closes it.
 * Resolves to whether it was done.
 */
export function confirm(title, text, caption, act) {
  return new Promise((resolve) => {
    const place = h('div', {});
    const yes = h('button.button.danger', { type: 'submit' }, caption);
    const dialog = h('dialog', { 'aria-label': title }, h('form', {},
      h('h2', {}, title), h('p', {}, text), place,
      h('div.actions', {}, h('button.button', { type: 'button', autofocus: true, onclick: () => dialog.close() }, 'Keep'), yes)));
    let done = false;
    dialog.addEventListener('submit', async (event) => {
      event.preventDefault();
      yes.disabled = true;
      try {
        await act();
        done = true;
        dialog.close();
      } catch (error) {
        yes.disabled = false;
        fill(place, problem(error));
      }
    });
    dialog.addEventListener('close', () => { dialog.remove(); resolve(done); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Does `act` while `button` cannot be pressed; what goes wrong is shown as a message. */
export async function busy(button, act) {
  button.disabled = true;
  try {
    await act();
  } catch (error) {
    if (!(error instanceof Problem || error instanceof Unreachable)) throw error;
    toast(error.message);
  } finally {
    button.disabled = false;
  }
}

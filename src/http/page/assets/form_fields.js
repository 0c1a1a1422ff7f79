// Fields of the form, made from the schema: what they take, their default and their description come from there.

import { h } from './dom.js';
import { read, write } from './request.js';
import { choices, field as described } from './schema.js';
import { inline } from './prose.js';

let unique = 0;

/**
 * A field of the form: its element, the pointer that problems name, `update(job)` which shows a job's value, and
 * `fault(texts)` which shows what is wrong with it.
 */
export function field(pointer, title, control, { hint = null, update }) {
  unique += 1;
  const id = `field-${unique}`;
  const input = control.matches('input, select, textarea') ? control : control.querySelector('input, select, textarea');
  if (input) input.id = id;
  const wrong = h('p.fault', { id: `${id}-fault`, hidden: true });
  const note = hint ? h('p.hint', { id: `${id}-hint` }, inline(hint)) : null;
  const element = h('div.field', { 'data-pointer': pointer }, h('label', { for: id }, title), control, wrong, note);
  input?.setAttribute('aria-describedby', `${id}-fault ${id}-hint`);
  const fault = (texts) => {
    wrong.hidden = texts.length === 0;
    wrong.textContent = texts.join('; ');
    if (texts.length) input?.setAttribute('aria-invalid', 'true');
    else input?.removeAttribute('aria-invalid');
  };
  return { pointer, element, update, fault, focus: () => input?.focus() };
}

/** A field of one value at `pointer`, as the schema has it; null where the server knows no such field. */
export function value(state, pointer, title) {
  const node = described(pointer);
  if (!node) return null;
  const names = choices(node);
  const hint = node.description;
  if (node.type === 'boolean') return flag(state, pointer, title, node);
  if (names.length) return choice(state, pointer, title, names, node);
  const numeric = node.type === 'integer' || node.type === 'number';
  const input = h('input', { inputmode: numeric ? 'decimal' : null, placeholder: placeholder(node), autocomplete: 'off', spellcheck: 'false' });
  input.addEventListener('input', () => state.set(pointer, parse(input.value, numeric)));
  const update = (job) => show(input, text(read(job, pointer)));
  return field(pointer, title, input, { hint, update });
}

/** A number where it is one; else the text, so that the server says what it expects. */
export function parse(typed, numeric) {
  const trimmed = typed.trim();
  if (trimmed === '') return undefined;
  return numeric && Number.isFinite(Number(trimmed)) ? Number(trimmed) : trimmed;
}

/** Numbers with commas or spaces between them. */
export function parseList(typed) {
  const parts = typed.split(/[\s,;]+/).filter(Boolean);
  return parts.length ? parts.map((part) => parse(part, true)) : undefined;
}

/** Shows a text in an input, unless somebody is writing there. */
export function show(input, shown) {
  if (input !== document.activeElement) input.value = shown;
}

function text(found) {
  return found === undefined || found === null ? '' : typeof found === 'object' ? JSON.stringify(found) : String(found);
}

function placeholder(node) {
  if (node.default !== undefined) return String(node.default);
  return node.examples?.length ? `such as ${node.examples[0]}` : null;
}

function choice(state, pointer, title, names, node) {
  const options = [h('option', { value: '' }, node.default === undefined ? '–' : `${node.default} (default)`), names.filter((name) => name !== node.default).map((name) => h('option', { value: name }, name))];
  const other = h('option', { value: '\u0000', hidden: true }, 'as in the JSON');
  const select = h('select', { onchange: () => state.set(pointer, select.value || undefined) }, options, other);
  const update = (job) => {
    const found = read(job, pointer);
    const shown = found === undefined || found === node.default ? '' : found;
    select.value = typeof shown === 'string' && (shown === '' || names.includes(shown)) ? shown : '\u0000';
  };
  return field(pointer, title, select, { hint: node.description, update });
}

function flag(state, pointer, title, node) {
  const box = h('input', { type: 'checkbox', onchange: () => state.set(pointer, box.checked === node.default ? undefined : box.checked) });
  const update = (job) => { box.checked = read(job, pointer) ?? node.default ?? false; };
  const made = field(pointer, title, h('div.check', {}, box), { hint: node.description, update });
  made.element.classList.add('boxed');
  return made;
}

/** A description of a job that tells `changed` when it is another. */
export class Draft {
  constructor(job, changed) {
    this.job = job;
    this.changed = changed;
  }

  set(pointer, given) {
    this.job = write(this.job, pointer, given);
    this.changed();
  }
}

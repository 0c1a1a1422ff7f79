// The fields that choose among what was uploaded: members and dataset; and those that are several values at once.

import { h, fill, reconcile } from './dom.js';
import { field, parse, parseList, show } from './form_fields.js';
import { count, shape } from './format.js';
import { read } from './request.js';
import { field as described } from './schema.js';

/** The members: the checkpoints with a box for each, those with the name's part that is searched. */
export function members(state, checkpoints) {
  const list = h('div.picker', { role: 'group', 'aria-label': 'Checkpoints' });
  const search = h('input', { type: 'search', placeholder: checkpoints.length > 8 ? `Search ${checkpoints.length} checkpoints` : 'Search', 'aria-label': 'Search checkpoints' });
  const chosen = h('p.small.muted');
  const names = () => read(state.job, '/members') ?? [];
  const toggle = (name, on) => {
    const others = names().filter((one) => one !== name);
    const next = on ? [...others, name] : others;
    state.set('/members', next.length ? next : undefined);
  };
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const now = names();
    const unknown = now.filter((name) => !checkpoints.some((one) => one.name === name));
    const rows = [...unknown.map((name) => ({ name, parameters: null })), ...checkpoints].filter(({ name }) => name.toLowerCase().includes(wanted));
    const entries = rows.map((one) => ({ name: one.name, parameters: one.parameters, place: now.indexOf(one.name) }));
    reconcile(list, entries, ({ name }) => name, ({ name, parameters, place }) => {
      const box = h('input', { type: 'checkbox', checked: place >= 0, onchange: () => toggle(name, box.checked) });
      return h('label.pick', {}, box, h('span.grow', {}, name), place >= 0 ? h('span.chip', {}, `member ${place}`) : null, h('span.muted.small.nowrap', {}, parameters === null ? 'not uploaded' : count(parameters)));
    });
    chosen.textContent = now.length ? `${now.length} chosen; their order is that in which they are ticked.` : 'Nothing chosen yet.';
  };
  search.addEventListener('input', draw);
  const none = h('p.muted', {}, 'There are no checkpoints yet. ', h('a', { href: '#/checkpoints' }, 'Upload the members'), ', then come back: what is filled in here stays.');
  const made = field('/members', 'Members', h('div.stack', {}, checkpoints.length > 5 ? search : null, checkpoints.length ? list : none, chosen), { update: draw });
  made.element.querySelector('label').removeAttribute('for');
  made.element.classList.add('quiet-label');
  return made;
}

/** One of the datasets at `pointer`. */
export function dataset(state, pointer, title, datasets) {
  const node = described(pointer);
  if (!node) return null;
  const describe = ({ name, state: of, facts }) => (of === 'ready' ? `${name} · ${shape(facts.example_shape)}, ${facts.classes ? `${facts.classes} classes` : facts.label_form ?? 'no classes'}` : `${name} · ${of}`);
  const select = h('select', { onchange: () => state.set(pointer, select.value || undefined) });
  const update = (job) => {
    const name = read(job, pointer);
    const known = datasets.some((one) => one.name === name);
    fill(select, h('option', { value: '' }, 'none'), datasets.map((one) => h('option', { value: one.name }, describe(one))), name && !known ? h('option', { value: name }, `${name} · not uploaded`) : null);
    select.value = name ?? '';
  };
  return field(pointer, title, select, { hint: node.description, update });
}

/** How inputs are normalised: not, by the train split, or by numbers. */
export function normalize(state, datasets) {
  const pointer = '/dataset/normalize';
  const kind = h('select', {}, h('option', { value: '' }, 'not at all'), h('option', { value: 'train' }, 'by mean and deviation of the train split'), h('option', { value: 'given' }, 'by these numbers'));
  const mean = h('input', { 'aria-label': 'Mean of each channel', placeholder: 'mean, such as 0.1307', autocomplete: 'off' });
  const std = h('input', { 'aria-label': 'Standard deviation of each channel', placeholder: 'deviation, such as 0.3081', autocomplete: 'off' });
  const numbers = h('div.pair', {}, mean, std);
  const given = () => ({ mean: parseList(mean.value) ?? [], std: parseList(std.value) ?? [] });
  kind.addEventListener('change', () => {
    if (kind.value === 'given' && mean.value === '') {
      const facts = datasets.find((one) => one.name === read(state.job, '/dataset/name'))?.facts;
      mean.value = (facts?.mean ?? []).map((one) => Number(one.toFixed(4))).join(', ');
      std.value = (facts?.std ?? []).map((one) => Number(one.toFixed(4))).join(', ');
    }
    state.set(pointer, kind.value === 'given' ? given() : kind.value || undefined);
  });
  for (const input of [mean, std]) input.addEventListener('input', () => state.set(pointer, given()));
  const update = (job) => {
    const found = read(job, pointer);
    const numeric = found !== null && typeof found === 'object';
    kind.value = numeric ? 'given' : found ?? '';
    numbers.hidden = !numeric;
    if (numeric) {
      show(mean, (found.mean ?? []).join(', '));
      show(std, (found.std ?? []).join(', '));
    }
  };
  return field(pointer, 'Normalise inputs', h('div.stack', {}, kind, numbers), { hint: described(pointer)?.description, update });
}

const SIZES = [['width', 'a factor of a member’s width'], ['params', 'at most so many parameters'], ['macs', 'at most so many MACs'], ['bytes', 'at most so many bytes']];

/** The size of the fused network: that of a member, a factor or a budget. */
export function size(state) {
  const kind = h('select', {}, h('option', { value: '' }, 'as wide as a member (default)'), SIZES.map(([name, title]) => h('option', { value: name }, title)));
  const input = h('input', { inputmode: 'decimal', 'aria-label': 'How large', autocomplete: 'off' });
  const set = () => {
    const rest = { ...(read(state.job, '/target') ?? {}) };
    for (const [name] of SIZES) delete rest[name];
    if (kind.value) rest[kind.value] = parse(input.value, true);
    if (rest[kind.value] === undefined) delete rest[kind.value];
    state.set('/target', Object.keys(rest).length ? rest : undefined);
  };
  kind.addEventListener('change', () => {
    const last = { width: '0.5', params: '100000', macs: '5000000', bytes: '400000' }[kind.value];
    input.value = last ?? '';
    set();
    if (kind.value) input.select();
  });
  input.addEventListener('input', set);
  const update = (job) => {
    const target = read(job, '/target') ?? {};
    const name = SIZES.map(([one]) => one).find((one) => target[one] !== undefined && target[one] !== 'member');
    if (document.activeElement !== input) {
      kind.value = name ?? '';
      show(input, name ? String(target[name]) : '');
    }
    input.hidden = !kind.value;
  };
  return field('/target', 'Target', h('div.pair', {}, kind, input), { hint: described('/target')?.description, update });
}

/** Labels, as `name=value` with commas between them. */
export function labelsField(state) {
  const input = h('input', { placeholder: 'team=vision, run=7', autocomplete: 'off' });
  input.addEventListener('input', () => {
    const pairs = input.value.split(',').map((part) => part.trim()).filter(Boolean).map((part) => [part.split('=')[0].trim(), part.split('=').slice(1).join('=').trim()]);
    state.set('/labels', pairs.length ? Object.fromEntries(pairs) : undefined);
  });
  const update = (job) => show(input, Object.entries(read(job, '/labels') ?? {}).map(([name, value]) => `${name}=${value}`).join(', '));
  return field('/labels', 'Labels', input, { hint: described('/labels')?.description, update });
}

/** Whether the fused network is trained; the fields of the training are shown where it is. */
export function recovery(state, inner) {
  const epochs = described('/finetune/epochs').default;
  const box = h('input', { type: 'checkbox', onchange: () => state.set('/finetune', box.checked ? { epochs } : undefined) });
  const made = field('/finetune', 'Train the fused network', h('div.check', {}, box), {
    hint: described('/finetune')?.description,
    update: (job) => {
      box.checked = Boolean(read(job, '/finetune'));
      inner.hidden = !box.checked;
    },
  });
  made.element.classList.add('boxed');
  return made;
}


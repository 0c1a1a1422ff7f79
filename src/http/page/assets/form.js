// The form that builds a job.

import { h, fill } from './dom.js';
import { all, get, send, v1 } from './api.js';
import { busy, card, code, crumbs, fail, head, tabs } from './ui.js';
import { go, link } from './router.js';
import { Draft, value } from './form_fields.js';
import { dataset, labelsField, members, normalize, recovery, size } from './form_inputs.js';
import { outcome } from './form_outcome.js';
import * as notation from './notation.js';
import { curl, python } from './repeat.js';
import { wantsKey } from './session.js';
import { read } from './request.js';
import { load as loadSchema, withoutDefaults } from './schema.js';

/** What was filled in, for whoever leaves the form to upload something and comes back. */
let kept = {};

/** Shows the form: empty, as it was left, or with the fields of the job that the query names. */
export async function show(root, { query }, signal) {
  try {
    const [checkpoints, datasets] = await Promise.all([all('/v1/checkpoints', { signal }), all('/v1/datasets', { signal }), loadSchema()]);
    const from = query.get('from');
    if (from) kept = withoutDefaults((await get(v1('jobs', from), { signal })).resolved);
    if (query.has('member')) kept = { ...kept, members: query.getAll('member') };
    if (query.has('dataset')) kept = { ...kept, dataset: { name: query.get('dataset') } };
    page(root, checkpoints, datasets, signal);
  } catch (error) {
    fail(root, error, signal);
  }
}

/** A dataset as an object, whichever way it was written. */
function expanded(job) {
  return typeof job.dataset === 'string' ? { ...job, dataset: { name: job.dataset } } : job;
}

function page(root, checkpoints, datasets, signal) {
  const state = new Draft(expanded(kept), () => changed(null));
  const result = outcome(() => fields, signal);
  const inner = h('div.grid');
  const one = (pointer, title) => value(state, pointer, title);
  const groups = [
    ['Members', [members(state, checkpoints)]],
    ['Data', [dataset(state, '/dataset/name', 'Dataset', datasets), normalize(state, datasets), dataset(state, '/dataset/validation', 'Validate on', datasets), dataset(state, '/dataset/test', 'Test on', datasets), one('/dataset/validation_fraction', 'Part held out'), one('/dataset/task', 'Task')]],
    ['Method', [one('/method/name', 'Method'), one('/method/importance', 'Ranking of units'), one('/method/compensate', 'Compensation'), one('/method/order', 'Order'), one('/method/ensemble', 'Rule of the ensemble'), one('/method/member_weights', 'Weights of members')]],
    ['Size', [size(state), one('/target/allocation', 'Allocation of a budget'), one('/target/round_to', 'Widths are multiples of')]],
    ['Recovery', [recovery(state, inner)]],
    ['Run', [one('/name', 'Name'), labelsField(state), one('/device', 'Device'), one('/precision', 'Precision'), one('/seed', 'Seed'), one('/priority', 'Priority')]],
  ].map(([title, made]) => ({ title, made: made.filter(Boolean) }));
  const training = ['epochs', 'objective', 'batch_size', 'patience', 'label_smoothing', 'warmup_epochs', 'optimizer/name', 'optimizer/lr', 'schedule', 'temperature', 'soft_weight', 'augment/crop_padding', 'augment/flip']
    .map((name) => one(`/finetune/${name}`, words(name))).filter(Boolean);
  inner.append(...training.map(({ element }) => element));
  const fields = [...groups.flatMap(({ made }) => made), ...training];

  const json = h('textarea', { rows: 11, spellcheck: 'false', 'aria-label': 'The job as JSON', 'aria-describedby': 'json-fault' });
  const jsonFault = h('p.fault', { id: 'json-fault', hidden: true });
  json.addEventListener('input', () => {
    try {
      state.job = expanded(JSON.parse(json.value));
      jsonFault.hidden = true;
      changed(json);
    } catch (error) {
      jsonFault.hidden = false;
      jsonFault.textContent = `This is not JSON yet: ${error.message}.`;
    }
  });
  const same = h('div');
  const submit = h('button.button.primary', { type: 'submit' }, 'Queue the job');
  let key = null;

  function changed(origin) {
    kept = state.job;
    key = crypto.getRandomValues(new Uint32Array(4)).join('-');
    for (const field of fields) field.update(state.job);
    if (origin !== json) {
      json.value = notation.json(state.job);
      jsonFault.hidden = true;
    }
    fill(same, tabs('The same as', [['curl', () => code(curl(state.job, wantsKey()))], ['Python', () => code(python(state.job, wantsKey()))]]));
    const ready = (read(state.job, '/members') ?? []).length > 0;
    submit.disabled = !ready;
    result.check(state.job, ready);
  }

  const form = h('form.columns.job-form', { novalidate: true },
    h('div.main', {}, groups.map(({ title, made }) => card(title, [h('div.grid', {}, made.map(({ element }) => element)), title === 'Recovery' ? inner : null]))),
    h('div.aside', {},
      h('section.card.outcome', { 'aria-label': 'Plan' }, result.element, h('div.submit', {}, submit)),
      card('As JSON', [json, jsonFault, h('p.hint', {}, 'Every field of a job can stand here, those without a place in the form too.')]),
      card('The same from a terminal', same)));
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    busy(submit, async () => {
      const job = await result.guard(async () => (await send('POST', '/v1/jobs', { json: state.job, headers: { 'idempotency-key': key } })).json());
      if (!job) return;
      kept = {};
      go(link(['jobs', job.id]));
    });
  });
  const reset = h('button.button', { type: 'button', onclick: () => { state.job = {}; changed(null); } }, 'Start over');
  fill(root, crumbs(['Jobs', '#/jobs']), head('New job', reset), form);
  changed(null);
}

function words(name) {
  const text = name.replace('optimizer/', 'optimizer: ').replace('augment/', 'augment: ').replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

// One job, live.

import { h, fill } from './dom.js';
import { get, v1 } from './api.js';
import { badge, card, code, copyButton, crumbs, facts, fail, head, labels, problem, tabs, time } from './ui.js';
import { between, duration, shortId } from './format.js';
import { follow, hasEnded } from './events.js';
import { link } from './router.js';
import { poll } from './poll.js';
import { canWrite, wantsKey } from './session.js';
import { actions } from './job_actions.js';
import { downloads } from './downloads.js';
import { curves } from './curves.js';
import { logView } from './log.js';
import { json } from './notation.js';
import { curl, python } from './repeat.js';
import { details, figures, warnings } from './planned.js';
import { PHASES, inWords, segments, whole } from './progress.js';
import { candidates, headline, origin } from './result.js';
import { load as loadSchema, withoutDefaults } from './schema.js';

/** Shows the job of the address and follows it to its end. */
export async function show(root, { parts: [, id] }, signal) {
  fill(root, h('div.loading', { 'aria-busy': 'true' }));
  try {
    const [job] = await Promise.all([get(v1('jobs', id), { signal }), loadSchema()]);
    page(root, job, signal);
  } catch (error) {
    fail(root, error, signal);
  }
}

function page(root, first, signal) {
  let job = first;
  const told = [];
  const slots = Object.fromEntries(['title', 'problem', 'warnings', 'progress', 'result', 'curves', 'origin', 'aside'].map((name) => [name, h('div.slot')]));
  const log = logView();
  const epochs = new Map();
  let drawing = false;
  let reported = null;

  const draw = () => {
    document.title = `${job.state} · ${name(job)} · engraft`;
    fill(slots.title, crumbs(['Jobs', '#/jobs']), head([name(job), badge(job.state)], ...(canWrite() ? actions(job, reload) : [])));
    fill(slots.problem, job.error ? problem(job.error) : null);
    fill(slots.progress, progressCard(job));
    drawWarnings();
    fill(slots.aside, aside(job));
  };
  // What the report says stands in the place of what the plan foresaw.
  const drawWarnings = () => fill(slots.warnings, warnings([...new Set([...(reported ?? job.plan?.warnings ?? []), ...told])]));
  const drawProgress = () => fill(slots.progress, progressCard(job));
  const drawCurves = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      fill(slots.curves, curves([...epochs.values()], job.best_epoch));
    });
  };
  const reload = async () => {
    job = await get(v1('jobs', job.id), { signal });
    draw();
    if (job.state === 'succeeded') await results();
  };
  const results = async () => {
    const report = await get(v1('jobs', job.id, 'report'), { signal });
    job = { ...job, best_epoch: report.best_epoch };
    reported = report.warnings;
    drawWarnings();
    fill(slots.result, card('Result', [headline(report), candidates(report)], { flush: true, note: `on ${report.examples.test ?? report.examples.validation ?? 0} examples, ± one standard error` }));
    const units = origin(report);
    fill(slots.origin, units ? card('Where its units come from', units, { flush: true }) : null);
    if (epochs.size) drawCurves();
  };
  const caught = (task) => task().catch((error) => fail(slots.problem, error, signal));

  fill(root, slots.title,
    h('div.columns', {}, h('div.main', {}, slots.problem, slots.warnings, slots.progress, slots.result, slots.curves, slots.origin, log.element), slots.aside));
  draw();
  if (job.state === 'succeeded') caught(results);
  follow(job.id, signal, (event) => {
    if (event.type === 'progress') {
      if (hasEnded(job.state)) return;
      job = { ...job, progress: event.data };
      if (event.seq === undefined) drawProgress();
      else soon();
    } else if (event.type === 'metric') {
      epochs.set(event.data.epoch, event.data);
      drawCurves();
    } else if (event.type === 'state') {
      log.add(event, `state: ${event.data.state}`);
      soon();
    } else {
      if (event.type === 'warning') {
        told.push(event.data.message);
        drawWarnings();
      }
      log.add(event, event.data.message);
    }
  });
  // A job whose history is long sends many events at once: it is read again when they have come.
  let timer = null;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(() => { if (!signal.aborted) caught(reload); }, 250);
  };
  poll(() => { if (hasEnded(job.state)) return false; drawProgress(); return true; }, 1000, signal, () => {});
}

function name(job) {
  return job.name ?? shortId(job.id);
}

function progressCard(job) {
  const ended = hasEnded(job.state);
  const left = ended ? null : whole(job.progress);
  const spans = new Map(job.phases.map((phase) => [phase.name, phase]));
  const phase = (one) => {
    const span = spans.get(one);
    const now = !ended && job.progress?.phase === one;
    return h(now ? 'li.now' : span ? 'li' : 'li.muted', { 'aria-current': now ? 'step' : null }, h('span', {}, one), h('span.small.muted', {}, span ? duration(between(span.started, span.ended ?? (ended ? job.finished_at : null))) : ' '));
  };
  const state = job.state === 'queued' ? `waits in the queue${job.queue_position ? `, position ${job.queue_position}` : ''}` : job.state === 'running' && job.progress ? inWords(job.progress, { time: false }) : job.state;
  const took = job.started_at ? `${ended ? 'took' : 'for'} ${duration(between(job.started_at, job.finished_at))}` : null;
  return h('section.card.stepper', { 'aria-label': 'Progress' }, segments(job.state, job.progress),
    h('ol', {}, PHASES.map(phase)),
    h('p', {}, h('strong', {}, state), h('span.muted', {}, [took, left ? `in all ${left}` : null].filter(Boolean).map((text) => ` · ${text}`))));
}

function aside(job) {
  const requested = withoutDefaults(job.resolved);
  const key = wantsKey();
  const file = (input) => {
    const place = input.role === 'member' || input.role === 'reference' ? 'checkpoints' : 'datasets';
    return h('li', {}, h('span.muted.small', {}, input.role), input.id ? h('a', { href: link([place, input.name]) }, input.name) : h('span', { title: 'It was deleted.' }, `${input.name} (deleted)`));
  };
  return [
    job.artifacts.length ? card('Downloads', downloads(job)) : null,
    card('Job', facts([
      ['Id', [h('code', {}, job.id), ' ', copyButton(() => job.id)]],
      ['Created', time(job.created_at)],
      ['Started', job.started_at ? time(job.started_at) : null],
      ['Ended', job.finished_at ? time(job.finished_at) : null],
      ['Attempt', job.attempt || null],
      ['Queued by', job.owner],
      ['Repeats', job.retry_of ? h('a', { href: link(['jobs', job.retry_of]) }, shortId(job.retry_of)) : null],
      ['Device', job.resolved.device],
      ['Seed', job.resolved.seed],
      ['Labels', labels(job.labels, (label, value) => link(['jobs'], { label: `${label}=${value}` }))],
    ])),
    card('Inputs', h('ul.inputs', {}, job.inputs.map(file))),
    card('The same again', tabs('The same again', [
      ['curl', () => code(curl(requested, key))],
      ['Python', () => code(python(requested, key))],
      ['JSON', () => code(json(requested))],
      ['All fields', () => code(json(job.resolved))],
    ])),
    job.plan?.parameters ? card('Plan', [figures(job.plan), details(job.plan)]) : null,
  ];
}

// A plan: what a job would make, what it would take, and what to look at before.

import { h } from './dom.js';
import { bytes, count, duration } from './format.js';
import { inline } from './prose.js';
import { facts } from './ui.js';

/** The warnings of a plan or a report. */
export function warnings(texts) {
  if (!texts?.length) return null;
  return h('div.notice.warn', {}, h('strong', {}, texts.length === 1 ? 'A warning' : `${texts.length} warnings`), texts.length === 1 ? inline(texts[0]) : h('ul', {}, texts.map((text) => h('li', {}, inline(text)))));
}

/** What comes out and what it takes. */
export function figures(plan) {
  if (!plan?.parameters) return null;
  const { parameters, macs, bytes: sizes } = plan;
  return h('div.figures', {},
    figure('Parameters', count(parameters.fused), beside(parameters, count)),
    figure('MACs', count(macs.fused), beside(macs, count)),
    figure('Size', bytes(sizes.fused), beside(sizes, bytes)),
    figure('Time', duration(plan.seconds_estimate), longest(plan), plan.seconds_basis),
    figure('Memory', bytes(plan.memory_peak_bytes), 'at the peak', plan.memory_basis),
    figure('Disk', bytes(plan.disk_peak_bytes), 'at the peak', plan.disk_basis));
}

/** The phase that takes longest, where it takes half of the time at least. */
function longest({ seconds_estimate: all, seconds_by_phase: phases }) {
  const most = Object.entries(phases ?? {}).find(([, seconds]) => seconds >= all / 2);
  return most ? `estimated, most of it to ${most[0]}` : 'estimated';
}

function beside({ members, concatenated }, text) {
  return [`of ${text(concatenated)}`, h('span', {}, ` · a member ${text(Math.max(...members))}`)];
}

function figure(name, value, note, title) {
  return h('div.figure', { title }, h('span.muted', {}, name), h('strong', {}, value), h('span.muted.small', {}, note));
}

/** How the network was recognised, and the width of each layer. */
export function details(plan) {
  if (!plan?.layers?.length) return null;
  const rows = plan.layers.map((layer) => h('tr', {}, h('td.mono', {}, layer.name), h('td.number', {}, count(layer.width_before)), h('td.number', {}, count(layer.width_after))));
  return [
    facts([
      ['Architecture', plan.architecture],
      ['Evidence', plan.evidence ? `${plan.evidence.degree}: ${plan.evidence.why}` : null],
      ['Assumed', plan.assumptions?.length ? plan.assumptions.join('; ') : null],
      ['Recovery', plan.recovery ? `${plan.recovery.objective}, learning rate ${plan.recovery.lr}${plan.recovery.rule ? ` (${plan.recovery.rule})` : ''}` : null],
    ]),
    h('details', {}, h('summary', {}, `${plan.layers.length} layers`), h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Layer'), h('th.number', { scope: 'col' }, 'Concatenated'), h('th.number', { scope: 'col' }, 'Fused'))), h('tbody', {}, rows))),
  ];
}

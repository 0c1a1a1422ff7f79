// What a fusion has brought: its candidates side by side, and where its units come from.

import { h, s } from './dom.js';
import { bytes, count, milliseconds, percent, short } from './format.js';
import { scale } from './chart.js';
import { standing, write } from './measures.js';

const WIDTH = 200;
const HEIGHT = 22;
const EDGE = 8;

/** The kinds of candidates that the plot always spans. */
const MAIN = new Set(['member', 'ensemble', 'trained_on', 'distilled', 'transplanted', 'fused']);

/** What is said of a candidate beside its name. */
const SUFFIX = { trained_on: ', trained on', distilled: ', distilled' };

/** The sentence above the table: the fused network beside the best member and the ensemble. */
export function headline(report) {
  const of = (kind) => report.candidates.filter((candidate) => candidate.kind === kind).map((candidate) => ({ candidate, at: standing(candidate, report.examples) })).filter(({ at }) => at);
  const [fused] = of('fused');
  if (!fused) return null;
  const { measure } = fused.at;
  // The best member is chosen where networks are: on the validation split, where there is one.
  const merit = ({ candidate, at }) => candidate.validation?.[measure.name] ?? at.value;
  const better = (a, b) => (measure.higher ? merit(a) > merit(b) : merit(a) < merit(b));
  const best = of('member').reduce((kept, one) => (kept === null || better(one, kept) ? one : kept), null);
  const [ensemble] = of('ensemble');
  const paired = report.paired?.find(({ against }) => against === 'best_member');
  const beside = (other, name) => h('div.figure', {}, h('span.muted', {}, name), h('strong', {}, write(measure, other.at.value)), h('span.muted.small', {}, difference(measure, fused.at.value - other.at.value)));
  return h('div.headline', {},
    h('div.figure', {}, h('span.muted', {}, `Fused, ${measure.title.toLowerCase()}`), h('strong.large', {}, write(measure, fused.at.value)), h('span.muted.small', {}, `± ${error(measure, fused.at.error)}`)),
    best ? beside(best, `Best member (${best.candidate.name})`) : null,
    ensemble ? beside(ensemble, 'Ensemble') : null,
    paired ? h('p.small.muted', {}, verdict(paired)) : null);
}

function difference(measure, by) {
  const sign = by < 0 ? '−' : '+';
  return measure.share ? `fused ${sign}${(Math.abs(by) * 100).toFixed(2)} points` : `fused ${sign}${short(Math.abs(by))}`;
}

function error(measure, value) {
  return measure.share ? `${(value * 100).toFixed(2)} points` : short(value);
}

/** What the paired test against the best member says. */
function verdict({ only_fused: mine, only_other: other, adjusted_p: p, name, by_loss: byLoss }) {
  const side = p >= 0.05 ? 'level with' : mine > other ? 'above' : 'below';
  const what = byLoss ? 'does better on' : 'alone is right on';
  return `The fused network is ${side} ${name}: it ${what} ${count(mine)} examples, the other on ${count(other)} (p ${p < 0.001 ? '< 0.001' : `= ${p.toFixed(3)}`}).`;
}

/** The candidates as a table, with their values and errors on one scale. */
export function candidates(report) {
  const rows = report.candidates.map((candidate) => ({ candidate, at: standing(candidate, report.examples) }));
  const measured = rows.filter(({ at }) => at);
  const { low, high } = range(measured);
  const x = scale(low, high, EDGE, WIDTH - EDGE);
  const measure = measured[0]?.at.measure;
  const reference = measured.find(({ candidate }) => candidate.kind === 'fused')?.at.value;
  const row = ({ candidate, at }) => h(candidate.kind === 'fused' ? 'tr.chosen' : 'tr', {},
    h('td', {}, `${candidate.name}${SUFFIX[candidate.kind] ?? ''}`),
    h('td.number', {}, at ? [write(measure, at.value), h('span.muted', {}, ` ± ${measure.share ? (at.error * 100).toFixed(2) : short(at.error)}`)] : '–'),
    h('td.wide.plot', {}, at ? interval(at, x, reference) : null),
    h('td.number.extra', {}, percent(candidate.agreement, 1)),
    h('td.number.extra', {}, count(candidate.parameters)),
    h('td.number.extra', {}, count(candidate.macs)),
    h('td.number.extra', {}, bytes(candidate.bytes)),
    h('td.number.extra', {}, milliseconds(candidate.latency_ms)));
  const titles = ['', measure?.title ?? '', '', 'As ensemble', 'Parameters', 'MACs', 'Size', 'Latency'];
  const heads = titles.map((title, index) => h(index === 0 || index === 2 ? 'th' : index > 2 ? 'th.number.extra' : 'th.number', { scope: 'col' }, title));
  return h('div.scroll', {}, h('table.reflow.candidates', {}, h('thead', {}, h('tr', {}, heads)), h('tbody', {}, rows.map(row))));
}

/**
 * The values that the plot spans: those of the networks that matter, and of the others what is not so far off that it would
 * squeeze them together; an arrow says that one stands outside.
 */
function range(measured) {
  const spanned = measured.filter(({ candidate }) => MAIN.has(candidate.kind));
  const basis = spanned.length > 1 ? spanned : measured;
  const low = Math.min(...basis.map(({ at }) => at.value - at.error));
  const high = Math.max(...basis.map(({ at }) => at.value + at.error));
  const near = measured.filter(({ at }) => at.value > low - (high - low) && at.value < high + (high - low));
  return { low: Math.min(low, ...near.map(({ at }) => at.value - at.error)), high: Math.max(high, ...near.map(({ at }) => at.value + at.error)) };
}

function interval({ value, error }, x, reference) {
  const middle = HEIGHT / 2;
  return s('svg.interval', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, 'aria-hidden': 'true' },
    reference === undefined ? null : s('line.axis.mark', { x1: x(reference), x2: x(reference), y1: 0, y2: HEIGHT }),
    outside(x(value)) ?? [
      s('line.whisker', { x1: Math.max(0, x(value - error)), x2: Math.min(WIDTH, x(value + error)), y1: middle, y2: middle }),
      s('circle.point', { cx: x(value), cy: middle, r: 3.5 }),
    ]);
}

/** An arrow at the edge for a value that the plot does not span. */
function outside(at) {
  const middle = HEIGHT / 2;
  if (at < 0) return s('path.point', { d: `M1 ${middle}l7 -4v8z` });
  if (at > WIDTH) return s('path.point', { d: `M${WIDTH - 1} ${middle}l-7 -4v8z` });
  return null;
}

/** Where the units of each layer come from: a bar for each, a part for each member. */
export function origin(report) {
  const layers = report.layers.filter((layer) => layer.kept_per_member.some((kept) => kept > 0));
  if (layers.length === 0) return null;
  const legend = h('div.legend', {}, report.members.map((name, index) => h('span', {}, h(`i.swatch.series-${(index % 6) + 1}`), name)));
  const row = (layer) => {
    const total = layer.kept_per_member.reduce((sum, kept) => sum + kept, 0);
    let from = 0;
    const parts = layer.kept_per_member.map((kept, index) => {
      const part = s(`rect.point.series-${(index % 6) + 1}`, { x: (from / total) * 100, width: (kept / total) * 100, height: 10 }, s('title', {}, `${report.members[index]}: ${kept} of ${total}`));
      from += kept;
      return part;
    });
    return h('tr', {},
      h('td.mono', {}, layer.name),
      h('td.number.muted', {}, `${layer.width_before} → ${layer.width_after}`),
      h('td.wide', {}, s('svg.share', { viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': layer.kept_per_member.map((kept, index) => `${report.members[index]} ${kept}`).join(', ') }, parts)),
      h('td.number.kept', {}, layer.kept_per_member.join(' / ')));
  };
  return [h('div.pad', {}, legend), h('table.reflow.origin', {}, h('thead', {}, h('tr', {}, ['Layer', 'Units', '', 'Kept'].map((title, index) => h(index === 0 || index === 2 ? 'th' : 'th.number', { scope: 'col' }, title)))), h('tbody', {}, layers.map(row)))];
}

// Curves as SVG: one picture with axes, a line for each series, and the values under the pointer in words.

import { h, s, fill } from './dom.js';

const WIDTH = 420;
const HEIGHT = 176;
const MARGIN = { left: 50, right: 12, top: 10, bottom: 26 };

/** Round numbers that divide `low` to `high` into about `wanted` parts. */
function ticks(low, high, wanted = 4) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / wanted;
  const size = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((one) => one >= rough);
  const marks = [];
  for (let mark = Math.ceil(low / step - 1e-9) * step; mark <= high + step * 1e-6; mark += step) marks.push(Number(mark.toPrecision(12)));
  return marks;
}

/** A linear map from `[low, high]` to `[from, to]`. */
export function scale(low, high, from, to) {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

/**
 * A chart of `series`, each `{name, index, points: [{x, y}], dashed}` with `index` 1 to 6 as its colour.
 * `format` writes a value, `mark` is an epoch that stands out; the axis of `fromZero` begins at 0.
 */
export function lineChart(label, series, { format, mark = null, fromZero = false }) {
  const given = series.filter((one) => one.points.length > 0);
  const points = given.flatMap((one) => one.points);
  if (points.length === 0) return h('p.muted', {}, 'Nothing was measured.');
  const [x0, x1] = extent(points.map((point) => point.x));
  const [least, high] = extent(points.map((point) => point.y));
  const low = fromZero ? Math.min(0, least) : least;
  const room = (high - low) * 0.06 || Math.abs(high) * 0.06 || 0.5;
  const x = scale(x0, Math.max(x1, x0 + 1), MARGIN.left, WIDTH - MARGIN.right);
  const y = scale(low - room, high + room, HEIGHT - MARGIN.bottom, MARGIN.top);

  const grid = ticks(low - room, high + room).map((value) => [
    s('line.axis', { x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(value), y2: y(value) }),
    s('text', { x: MARGIN.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, format(value, true)),
  ]);
  const below = ticks(x0, Math.max(x1, x0 + 1), 6).filter(Number.isInteger).map((value) => s('text', { x: x(value), y: HEIGHT - 8, 'text-anchor': 'middle' }, value));
  const flag = mark === null ? null : [
    s('line.axis.mark', { x1: x(mark), x2: x(mark), y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
  ];
  const lines = given.map((one) => s(`path.curve.series-${one.index}${one.dashed ? '.dashed' : ''}`, { d: path(one.points, x, y) }));
  const dots = given.filter((one) => one.points.length === 1).map((one) => s(`circle.point.series-${one.index}`, { cx: x(one.points[0].x), cy: y(one.points[0].y), r: 3 }));
  const cursor = s('line.axis.cursor', { y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: 'hidden' });
  const picture = s('svg.chart', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': `${label}, ${given.map((one) => `${one.name} ${format(one.points.at(-1).y)}`).join(', ')}` }, grid, below, flag, lines, dots, cursor);

  const legend = h('div.legend');
  const tell = (at) => {
    const known = at === null ? null : `epoch ${at}`;
    fill(legend, h('span', {}, known ?? 'last'), given.map((one) => {
      const point = at === null ? one.points.at(-1) : one.points.find((candidate) => candidate.x === at);
      return h('span', {}, h(`i.swatch.series-${one.index}`), `${one.name} ${point ? format(point.y) : '–'}`);
    }));
  };
  const positions = [...new Set(points.map((point) => point.x))].sort((a, b) => a - b);
  picture.addEventListener('pointermove', (event) => {
    const box = picture.getBoundingClientRect();
    const wanted = ((event.clientX - box.left) / box.width) * WIDTH;
    const at = positions.reduce((best, one) => (Math.abs(x(one) - wanted) < Math.abs(x(best) - wanted) ? one : best));
    cursor.setAttribute('x1', x(at));
    cursor.setAttribute('x2', x(at));
    cursor.setAttribute('visibility', 'visible');
    tell(at);
  });
  picture.addEventListener('pointerleave', () => { cursor.setAttribute('visibility', 'hidden'); tell(null); });
  tell(null);
  return h('figure', {}, h('figcaption', {}, h('h3', {}, label), legend), picture);
}

function extent(values) {
  return [Math.min(...values), Math.max(...values)];
}

function path(points, x, y) {
  return points.map((point, index) => `${index ? 'L' : 'M'}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join('');
}

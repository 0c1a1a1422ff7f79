// Numbers and times as people read them.

const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];

function three(number) {
  return number >= 100 ? number.toFixed(0) : number >= 10 ? number.toFixed(1) : number.toFixed(2);
}

/** Bytes: `191 KiB`. */
export function bytes(number) {
  if (number === null || number === undefined) return '–';
  let unit = 0;
  let scaled = number;
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? scaled : three(scaled)} ${UNITS[unit]}`;
}

/** A count: `48.8 k`. */
export function count(number) {
  if (number === null || number === undefined) return '–';
  if (number < 10_000) return number.toLocaleString('en');
  for (const [unit, size] of [['G', 1e9], ['M', 1e6], ['k', 1e3]]) {
    if (number >= size) return `${three(number / size)} ${unit}`;
  }
  return String(number);
}

/** A span of seconds: `1 min 12 s`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return '–';
  if (seconds < 0.095) return '< 0.1 s';
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const hours = Math.floor(whole / 3600);
  if (hours < 48) return `${hours} h ${Math.round((whole % 3600) / 60)} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Seconds between two times; until now where the second is missing. */
export function between(start, end) {
  return ((end ? Date.parse(end) : Date.now()) - Date.parse(start)) / 1000;
}

/** How long ago a time was. */
export function ago(time) {
  const seconds = Math.max(0, between(time));
  if (seconds < 5) return 'now';
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 86_400 * 14) return `${Math.floor(seconds / 86_400)} d ago`;
  return time.slice(0, 10);
}

/** A time in the reader's own zone. */
export function moment(time) {
  return new Date(time).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'medium' });
}

/** A share as percent: `93.61 %`. */
export function percent(share, digits = 2) {
  return share === null || share === undefined ? '–' : `${(share * 100).toFixed(digits)} %`;
}

/** A number with about four digits. */
export function short(number) {
  if (number === null || number === undefined) return '–';
  if (number === 0) return '0';
  const size = Math.abs(number);
  return size >= 1e5 || size < 1e-3 ? number.toExponential(2) : String(Number(number.toPrecision(4)));
}

/** A span of milliseconds: `5.8 µs`, `12.4 ms`. */
export function milliseconds(number) {
  if (number === null || number === undefined) return '–';
  return number < 1 ? `${three(number * 1000)} µs` : `${three(number)} ms`;
}

/** A shape: `1 × 28 × 28`. */
export function shape(sizes) {
  return sizes.length ? sizes.join(' × ') : 'scalar';
}

/** An id without its middle. */
export function shortId(id) {
  return id.length > 20 ? `${id.slice(0, id.indexOf('_') + 1)}${id.slice(-8)}` : id;
}

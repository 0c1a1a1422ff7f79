// Values as JSON and as Python, each list and object in one line where it fits.

const WIDTH = 84;

const JSON_WORDS = { null: 'null', true: 'true', false: 'false', step: 2, last: '' };
const PYTHON_WORDS = { null: 'None', true: 'True', false: 'False', step: 4, last: ',' };

/** A value as JSON that people read. */
export function json(value) {
  return write(value, 0, JSON_WORDS);
}

/** A value as Python writes it, of which the first line begins after `indent` characters. */
export function python(value, indent = 0) {
  return write(value, indent, PYTHON_WORDS);
}

function write(value, indent, words) {
  if (value === null || typeof value === 'boolean') return words[value];
  if (typeof value !== 'object') return JSON.stringify(value);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const inner = indent + words.step;
  const entries = Array.isArray(value)
    ? value.map((one) => write(one, inner, words))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${write(one, inner, words)}`);
  const line = `${open}${entries.join(', ')}${close}`;
  if (entries.length === 0 || (line.length + indent < WIDTH && !line.includes('\n') && indent > 0)) return line;
  const space = ' '.repeat(inner);
  return `${open}\n${space}${entries.join(`,\n${space}`)}${words.last}\n${' '.repeat(indent)}${close}`;
}

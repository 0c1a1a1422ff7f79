// A dataset that three small networks learn in a second, and the networks.

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

const SIDE = 8;
const CLASSES = 4;

/** A file of safetensors with these tensors, each `{name, dtype, shape, bytes}`. */
export function safetensors(tensors) {
  const header = {};
  let end = 0;
  for (const { name, dtype, shape, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [end, end + bytes.length] };
    end += bytes.length;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  return Buffer.concat([length, padded, ...tensors.map(({ bytes }) => bytes)]);
}

/** A generator of numbers in [0, 1) (mulberry32). */
function random(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Noisy images with a bright quarter, whose place is the class. */
function images(count, seed) {
  const draw = random(seed);
  const x = Buffer.alloc(count * SIDE * SIDE);
  const y = Buffer.alloc(count * 8);
  for (let example = 0; example < count; example += 1) {
    const label = Math.floor(draw() * CLASSES);
    y.writeBigInt64LE(BigInt(label), example * 8);
    for (let at = 0; at < SIDE * SIDE; at += 1) {
      const [row, column] = [Math.floor(at / SIDE), at % SIDE];
      const inside = Math.floor(row / (SIDE / 2)) * 2 + Math.floor(column / (SIDE / 2)) === label;
      x[example * SIDE * SIDE + at] = Math.floor(draw() * 110) + (draw() < (inside ? 0.33 : 0.16) ? 140 : 0);
    }
  }
  const tensor = (name, dtype, shape, bytes) => ({ name, dtype, shape, bytes });
  return (split) => [tensor(`x_${split}`, 'U8', [count, 1, SIDE, SIDE], x), tensor(`y_${split}`, 'I64', [count], y)];
}

/** Writes the dataset and trains the networks in `folder`; their paths. */
export function make(folder) {
  const dataset = join(folder, 'quarters.safetensors');
  writeFileSync(dataset, safetensors([...images(3000, 1)('train'), ...images(800, 2)('test')]));
  const out = join(folder, 'members');
  const recipe = join(folder, 'recipe.json');
  const train = { epochs: 4, batch_size: 32, optimizer: { name: 'adamw', lr: 0.005 } };
  writeFileSync(recipe, JSON.stringify({ network: 'mlp:24,24', dataset: { name: dataset, normalize: 'train' }, train }));
  execFileSync(process.env.PROGRAM, ['train', '--recipe', recipe, '--dataset', dataset, '--out', out], { stdio: 'ignore' });
  return { dataset, members: [0, 1, 2].map((seed) => join(out, `m${seed}.safetensors`)) };
}

/** A checkpoint whose tensors have these names. */
export function named(...names) {
  return safetensors(names.map((name) => ({ name, dtype: 'F32', shape: [1], bytes: Buffer.alloc(4) })));
}


// The schema of a job, as the server has it: what a field takes, its default and its description.

import { get } from './api.js';

let known = null;

/** Reads the schema once. */
export async function load() {
  known ??= await get('/schemas/job.schema.json');
  return known;
}

function resolve(node) {
  let found = node;
  while (found?.$ref) {
    const { description } = found;
    const [, , name] = found.$ref.split('/');
    found = { ...known.$defs[name], ...(description ? { description } : {}) };
  }
  return found;
}

/** What stands behind a JSON pointer such as `/finetune/epochs`; null where there is no such field. */
export function field(pointer) {
  let node = resolve(known);
  for (const name of pointer.split('/').slice(1)) {
    const forms = [node, ...(node.oneOf ?? []).map(resolve)];
    const holder = forms.find((form) => form?.properties?.[name]);
    if (!holder) return null;
    node = resolve(holder.properties[name]);
  }
  return node;
}

/** The names that a field takes, where it takes names. */
export function choices(node) {
  const forms = [node, ...(node?.oneOf ?? []).map(resolve)];
  return forms.find((form) => form?.enum)?.enum ?? [];
}

/** `job` without what is a default anyway; members stay. */
export function withoutDefaults(job) {
  return strip(job, '') ?? {};
}

function strip(value, pointer) {
  const node = pointer ? field(pointer) : null;
  if (node && JSON.stringify(node.default) === JSON.stringify(value)) return undefined;
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return value;
  const kept = Object.entries(value).map(([name, one]) => [name, strip(one, `${pointer}/${name}`)]).filter(([, one]) => one !== undefined);
  return kept.length ? Object.fromEntries(kept) : undefined;
}

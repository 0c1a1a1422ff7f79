// Schemas of the API as tables that open where they refer to others.

import { h, fill } from './dom.js';
import { inline } from './prose.js';

const DEEPEST = 6;

function resolve(api, node) {
  if (!node?.$ref) return node ?? {};
  return api.components.schemas[node.$ref.split('/').at(-1)] ?? {};
}

function nameOf(node) {
  return node?.$ref?.split('/').at(-1) ?? null;
}

/** The type of a schema in a few words: `string`, `list of TensorView`, `integer or null`. */
export function typeName(api, node) {
  if (!node) return '';
  if (node.$ref) return nameOf(node);
  if (node.oneOf || node.anyOf) return [...new Set((node.oneOf ?? node.anyOf).map((one) => typeName(api, one)))].join(' or ');
  if (node.allOf) return node.allOf.map((one) => nameOf(one)).find(Boolean) ?? 'object';
  if (node.enum) return node.enum.length > 4 ? 'one of several names' : node.enum.map((one) => JSON.stringify(one)).join(' or ');
  if (Array.isArray(node.type)) return node.type.map((type) => (type === 'array' ? typeName(api, { ...node, type }) : type)).join(' or ');
  if (node.type === 'array') return `list of ${typeName(api, node.items) || 'anything'}`;
  return node.format ? `${node.type} (${node.format})` : node.type ?? 'anything';
}

/** The fields of a schema, one in a row; those that are schemas themselves open. Nothing for plain values. */
export function schema(api, node, depth = 0) {
  const fields = properties(api, node);
  if (fields.length === 0) return null;
  const row = ({ name, field, required }) => h('div.property', {},
    h('div', {}, h('code', {}, name), required ? null : h('span.small.muted', {}, ' optional')),
    h('div.small.muted', {}, typeName(api, field)),
    h('div.small', {}, said(api, field)),
    depth < DEEPEST ? nested(api, field, depth) : null);
  return h('div.properties', {}, fields.map(row));
}

function said(api, field) {
  const parts = [inline(field.description ?? resolve(api, field).description ?? '')];
  const names = field.enum ?? resolve(api, field).enum;
  if (names?.length > 4 || (field.$ref && names)) parts.push(h('span.muted', {}, ' One of '), names.map((name, index) => [index ? ', ' : '', h('code', {}, name)]), '.');
  if (field.default !== undefined) parts.push(h('span.muted', {}, ' By default '), h('code', {}, JSON.stringify(field.default)), '.');
  return parts;
}

function nested(api, field, depth) {
  return holders(api, field).map((holder) => {
    const body = h('div');
    const element = h('details', {}, h('summary', {}, nameOf(holder) ?? 'its fields'), body);
    element.addEventListener('toggle', () => { if (element.open && !body.hasChildNodes()) fill(body, schema(api, holder, depth + 1)); });
    return element;
  });
}

/** The schemas with fields that a field is, may be, or holds. */
function holders(api, node, depth = 0) {
  if (!node || typeof node !== 'object' || depth > DEEPEST) return [];
  if (properties(api, node).length) return [node];
  const found = resolve(api, node);
  return [...(found.oneOf ?? []), ...(found.anyOf ?? []), found.items, found.additionalProperties].flatMap((one) => holders(api, one, depth + 1));
}

function properties(api, node) {
  const found = resolve(api, node);
  const parts = found.allOf ? found.allOf.flatMap((part) => properties(api, part)) : [];
  const required = new Set(found.required ?? []);
  return [...parts, ...Object.entries(found.properties ?? {}).map(([name, field]) => ({ name, field, required: required.has(name) }))];
}

/** A value that a schema takes, from its examples. */
export function example(api, node, depth = 0) {
  const found = resolve(api, node);
  if (found.example !== undefined) return found.example;
  if (found.examples?.length) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.enum) return found.enum[0];
  if (depth > DEEPEST) return null;
  const form = (found.oneOf ?? found.anyOf)?.[0];
  if (form) return example(api, form, depth + 1);
  const fields = properties(api, found).filter(({ required }) => required);
  if (fields.length) return Object.fromEntries(fields.map(({ name, field }) => [name, example(api, field, depth + 1)]));
  if (found.type === 'array') return [example(api, found.items, depth + 1)];
  return { string: '', integer: 0, number: 0, boolean: false }[Array.isArray(found.type) ? found.type[0] : found.type] ?? {};
}

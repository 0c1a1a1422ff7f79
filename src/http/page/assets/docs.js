// The API as its own description has it: operations by tag, with a search.

import { h, fill } from './dom.js';
import { get } from './api.js';
import { json } from './notation.js';
import { code, fail, head } from './ui.js';
import { inline, prose } from './prose.js';
import { example, schema, typeName } from './docs_schema.js';

const METHODS = ['get', 'put', 'post', 'delete', 'head', 'patch'];

/** Shows the description; the query `q` searches it, `op` opens one operation. */
export async function show(root, { query }, signal) {
  try {
    page(root, await get('/openapi.json', { signal }), query);
  } catch (error) {
    fail(root, error, signal);
  }
}

function operations(api) {
  return Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => ({ path, method, operation: item[method] })));
}

function page(root, api, query) {
  const all = operations(api);
  const count = h('span.muted.small', { role: 'status' });
  const search = h('input', { type: 'search', placeholder: 'Search paths, names and descriptions', 'aria-label': 'Search the API', value: query.get('q') ?? '' });
  const sections = api.tags.map((tag) => {
    const entries = all.filter(({ operation }) => operation.tags?.includes(tag.name)).map((one) => ({ ...one, element: entry(api, one) }));
    const element = h('section.operations', { id: `tag-${tag.name}` }, h('header', {}, h('h2', {}, tag.name), h('p.muted', {}, tag.description)), h('div.card', {}, entries.map((one) => one.element)));
    return { element, entries };
  });
  const filter = () => {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const { element, entries } of sections) {
      let any = false;
      for (const { path, method, operation, element: one } of entries) {
        const text = [method, path, operation.operationId, operation.summary, operation.description].join(' ').toLowerCase();
        one.hidden = !wanted.every((word) => text.includes(word));
        any ||= !one.hidden;
        shown += one.hidden ? 0 : 1;
      }
      element.hidden = !any;
    }
    count.textContent = `${shown} of ${all.length} operations`;
  };
  search.addEventListener('input', filter);
  fill(root, head('API', h('a.button', { href: '/openapi.json', download: 'openapi.json' }, 'openapi.json')),
    h('div.intro', {}, prose(api.info.description)),
    h('div.filters', {}, search, count), sections.map(({ element }) => element));
  filter();
  const open = all.find(({ operation }) => operation.operationId === query.get('op'));
  if (open) {
    const element = document.getElementById(`op-${open.operation.operationId}`);
    element.open = true;
    element.scrollIntoView();
  }
}

function entry(api, { path, method, operation }) {
  const body = h('div.operation');
  const element = h('details', { id: `op-${operation.operationId}` },
    h('summary', {}, h('span.method', { 'data-method': method.toUpperCase() }, method.toUpperCase()), h('code.path', {}, path.split(/(\{[^}]+\})/).map((part) => (part.startsWith('{') ? h('span.muted', {}, part) : part))), h('span.summary', {}, operation.summary)), body);
  element.addEventListener('toggle', () => { if (element.open && !body.hasChildNodes()) fill(body, details(api, path, method, operation)); });
  return element;
}

function details(api, path, method, operation) {
  const { parameters = [], requestBody, responses } = operation;
  return [
    h('div.prose', {}, prose(operation.description)),
    h('h3', {}, 'Example'), code(command(api, path, method, operation)),
    parameters.length ? [h('h3', {}, 'Parameters'), parameterTable(api, parameters)] : null,
    requestBody ? [h('h3', {}, 'Body'), h('div.prose', {}, prose(requestBody.description)), content(api, requestBody.content)] : null,
    h('h3', {}, 'Answers'),
    Object.entries(responses).map(([status, response]) => answer(api, status, response)),
  ];
}

function parameterTable(api, parameters) {
  const row = (parameter) => h('tr', {},
    h('td.nowrap', {}, h('code', {}, parameter.name), parameter.required ? h('span.small.bad', {}, ' required') : null),
    h('td.small.muted', {}, parameter.in),
    h('td.small.nowrap', {}, typeName(api, parameter.schema)),
    h('td.wide', {}, inline(parameter.description ?? ''), parameter.example === undefined ? null : h('span.small.muted', {}, ' Such as ', h('code', {}, String(parameter.example)))));
  return h('table.reflow.plain', {}, h('thead', {}, h('tr', {}, ['Name', 'In', 'Type', ''].map((title) => h('th', { scope: 'col' }, title)))), h('tbody', {}, parameters.map(row)));
}

function answer(api, status, response) {
  const headers = Object.entries(response.headers ?? {});
  const good = status.startsWith('2') || status.startsWith('3');
  const inner = h('div.answer');
  const element = h('details', {}, h('summary', {}, h(good ? 'span.status.good' : 'span.status.bad', {}, status), h('span', {}, inline(response.description ?? ''))), inner);
  element.addEventListener('toggle', () => {
    if (!element.open || inner.hasChildNodes()) return;
    fill(inner, headers.length ? h('ul.small', {}, headers.map(([name, header]) => h('li', {}, h('code', {}, name), ' ', inline(header.description ?? '')))) : null, response.content ? content(api, response.content) : h('p.muted', {}, 'It has no body.'));
  });
  return element;
}

function content(api, types) {
  return Object.entries(types).map(([type, media]) => {
    const shown = media.example ?? Object.values(media.examples ?? {})[0]?.value ?? example(api, media.schema);
    const text = typeof shown === 'string' ? shown : json(shown);
    return h('div', {}, h('p.small', {}, h('code', {}, type), h('span.muted', {}, ` ${typeName(api, media.schema)}`)), schema(api, media.schema), text && text !== '{}' && text !== 'null' ? h('details', {}, h('summary', {}, 'An example'), code(text)) : null);
  });
}

/** A line of curl that sends the operation with its own examples. */
function command(api, path, method, { parameters = [], requestBody }) {
  const of = (place) => parameters.filter((parameter) => parameter.in === place && parameter.required);
  const address = of('path').reduce((text, { name, example: shown }) => text.replace(`{${name}}`, encodeURIComponent(shown ?? name.toUpperCase())), path);
  const body = Object.entries(requestBody?.content ?? {})[0];
  const parts = ['curl'];
  if (method === 'head') parts.push('-I');
  else if (method === 'put' && body && !body[0].includes('json')) parts.push('-T FILE');
  else if (body) parts.push(`--json '${JSON.stringify(body[1].example ?? example(api, body[1].schema))}'`, method === 'post' ? '' : `-X ${method.toUpperCase()}`);
  else if (method !== 'get') parts.push(`-X ${method.toUpperCase()}`);
  return [...parts, `${location.origin}${address}`].filter(Boolean).join(' ');
}

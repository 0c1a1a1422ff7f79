// The lines that do the same from a shell and from Python.

/** A string as a shell takes it. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** The lines of curl that queue `job` and fetch the model; `key` where the server asks for one. */
export function curl(job, key) {
  const authorization = key ? ' -H "Authorization: Bearer $ENGRAFT_API_KEY"' : '';
  return [
    `U=${location.origin}/v1`,
    `c() { curl --fail-with-body -sS${authorization} "$@"; }`,
    `ID=$(c -H "Idempotency-Key: $(date +%s%N)" --json ${quoted(JSON.stringify(job, null, 2))} $U/jobs | jq -re .id)`,
    'until c -H \'Prefer: wait=60\' $U/jobs/$ID | jq -e \'.state | IN("succeeded", "failed", "cancelled")\' > /dev/null; do :; done',
    'c -o fused.safetensors $U/jobs/$ID/model',
  ].join('\n');
}

/** The lines of Python that do the same with the client. */
export function python(job, key) {
  const { members, dataset, ...rest } = job;
  const fields = Object.entries(rest).map(([name, value]) => `        ${name}=${literal(value, 8)},`);
  return [
    'from engraft import Client',
    '',
    `with Client(${JSON.stringify(location.origin)}) as client:${key ? '  # the key: ENGRAFT_API_KEY' : ''}`,
    '    job = client.fuse(',
    `        ${literal(members, 8)},`,
    `        ${literal(dataset ?? null, 8)},`,
    ...fields,
    '    ).wait()',
    '    job.download("fused.safetensors")',
  ].join('\n');
}

/** A value of JSON as Python writes it. */
function literal(value, indent) {
  if (value === null) return 'None';
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (typeof value !== 'object') return JSON.stringify(value);
  const entries = Array.isArray(value)
    ? value.map((one) => literal(one, indent + 4))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one, indent + 4)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  const line = `${open}${entries.join(', ')}${close}`;
  if (line.length + indent < 88) return line;
  const inner = ' '.repeat(indent + 4);
  return `${open}\n${entries.map((entry) => `${inner}${entry},\n`).join('')}${' '.repeat(indent)}${close}`;
}

// The lines that do the same from a shell and from Python.

import { json, python as literal } from './notation.js';

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
    `ID=$(c -H "Idempotency-Key: $(date +%s%N)" --json ${quoted(json(job))} $U/jobs | jq -re .id)`,
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

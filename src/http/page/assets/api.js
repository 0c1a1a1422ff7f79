// Requests to the server, and whether it answers.

/** The server's refusal: a problem as RFC 9457 describes it. */
export class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? body.title ?? `The server answered ${status}.`);
    this.status = status;
    this.code = body.code ?? null;
    this.title = body.title ?? `Status ${status}`;
    this.detail = body.detail ?? '';
    this.errors = body.errors ?? [];
    this.requestId = body.request_id ?? null;
  }
}

/** The server did not answer. */
export class Unreachable extends Error {}

/** Fires `change` when the server stops answering and when it answers again, and `unauthorized` when it no longer knows who asks. */
class Connection extends EventTarget {
  reachable = true;

  report(reachable) {
    if (reachable === this.reachable) return;
    this.reachable = reachable;
    this.dispatchEvent(new Event('change'));
  }
}

export const connection = new Connection();

/** Reads what the server says of a request that it refused. */
async function problemOf(response) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 401) connection.dispatchEvent(new Event('unauthorized'));
  return new Problem(body, response.status);
}

/**
 * Sends a request; `json` becomes its body.
 * Throws `Problem` where the server refuses it, `Unreachable` where there is no answer.
 */
export async function send(method, path, { json, headers = {}, signal } = {}) {
  const body = json === undefined ? undefined : JSON.stringify(json);
  if (body !== undefined) headers = { ...headers, 'content-type': 'application/json' };
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, credentials: 'same-origin' });
  } catch (error) {
    if (signal?.aborted) throw error;
    connection.report(false);
    throw new Unreachable('The server does not answer.', { cause: error });
  }
  connection.report(true);
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** Reads JSON. */
export async function get(path, options) {
  return (await send('GET', path, options)).json();
}

/** The path of `parts` below `/v1`, each of them escaped. */
export function v1(...parts) {
  return `/v1/${parts.map(encodeURIComponent).join('/')}`;
}

/** All entries of a list, page after page, at most `most`. */
export async function all(path, { signal, most = 1000 } = {}) {
  const entries = [];
  let after = null;
  do {
    const query = new URLSearchParams({ limit: '200', ...(after ? { after } : {}) });
    const page = await get(`${path}?${query}`, { signal });
    entries.push(...page.data);
    after = page.has_more ? page.next_after : null;
  } while (after && entries.length < most);
  return entries;
}

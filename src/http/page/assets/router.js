// Which page is shown: the hash of the address, as `#/jobs/ID?tab=log`.

let stop = null;

/** The place that the address names. */
export function place() {
  const [path, query = ''] = (location.hash.slice(1) || '/jobs').split('?');
  const parts = path.split('/').filter(Boolean).map(decode);
  return { parts, query: new URLSearchParams(query) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** The address of `parts` with `query`; what is null or empty in it is left out. */
export function link(parts, query = {}) {
  const given = Object.entries(query).flatMap(([name, value]) => (Array.isArray(value) ? value : [value]).map((one) => [name, one]));
  const text = new URLSearchParams(given.filter(([, value]) => value !== null && value !== undefined && value !== '')).toString();
  return `#/${parts.map(encodeURIComponent).join('/')}${text ? `?${text}` : ''}`;
}

/** Goes to `address`, which `link` has made. */
export function go(address) {
  if (location.hash === address) window.dispatchEvent(new HashChangeEvent('hashchange'));
  else location.hash = address;
}

/**
 * Shows the page of the address in `root`. `find(place)` gives its title and `show(root, place, signal)`, whose signal is
 * aborted when another page is shown.
 */
export function show(root, find, { keepFocus = false } = {}) {
  stop?.abort();
  stop = new AbortController();
  const here = place();
  const page = find(here);
  document.title = page.title ? `${page.title} · engraft` : 'engraft';
  const view = document.createElement('div');
  root.replaceChildren(view);
  page.show(view, here, stop.signal);
  if (!keepFocus) {
    window.scrollTo(0, 0);
    root.focus({ preventScroll: true });
  }
}

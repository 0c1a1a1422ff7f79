// Elements. Everything that comes from data enters as a text node or an attribute, never as markup.

const SVG = 'http://www.w3.org/2000/svg';

function append(parent, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : String(child));
  }
  return parent;
}

function make(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'indeterminate') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  return append(element, children);
}

/** An HTML element: `h('p.muted', {title}, 'text', child)`. */
export function h(selector, attributes, ...children) {
  const [tag, ...classes] = selector.split('.');
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(' ');
  return make(element, attributes, children);
}

/** An SVG element; classes stand in the selector, as for `h`. */
export function s(selector, attributes, ...children) {
  const [tag, ...classes] = selector.split('.');
  const element = document.createElementNS(SVG, tag);
  if (classes.length) element.setAttribute('class', classes.join(' '));
  return make(element, attributes, children);
}

/** Puts `children` in the place of what `parent` holds. */
export function fill(parent, ...children) {
  parent.replaceChildren();
  return append(parent, children);
}

/** Sets the custom property `--part` of an element to a share in [0, 1]. */
export function setPart(element, share) {
  element.style.setProperty('--part', `${Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10}%`);
  return element;
}

/**
 * Makes the children of `parent` those of `entries`, in their order. An entry that has not changed keeps its element, so that
 * focus and selection survive updates; one that has changed gets the focus back where its element had it.
 */
export function reconcile(parent, entries, key, create) {
  const before = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const after = entries.map((entry) => {
    const name = key(entry);
    const print = JSON.stringify(entry);
    const old = before.get(name);
    if (old?.print === print) return old;
    const element = create(entry);
    element.dataset.key = name;
    element.print = print;
    if (old?.contains(document.activeElement)) {
      const place = focusable(old).indexOf(document.activeElement);
      queueMicrotask(() => focusable(element)[place]?.focus());
    }
    return element;
  });
  const same = after.length === parent.children.length && after.every((child, index) => child === parent.children[index]);
  if (!same) parent.replaceChildren(...after);
}

function focusable(element) {
  return [...element.querySelectorAll('a[href], button, input, select')];
}

// Descriptions of the API as elements: paragraphs, code and line breaks of the little Markdown that they use.

import { h } from './dom.js';

/** A line of text with its code. */
export function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith('`') && part.length > 2 ? h('code', {}, part.slice(1, -1)) : part));
}

/** A text of paragraphs. */
export function prose(text) {
  return (text ?? '').split(/\n{2,}/).filter(Boolean).map((paragraph) => h('p', {}, inline(paragraph.replaceAll('\n', ' '))));
}

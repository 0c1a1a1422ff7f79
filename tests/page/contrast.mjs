// The contrast of every text with what is behind it (WCAG 2.2, 1.4.3 and 1.4.11).

/** Runs in the page: texts and edges of controls whose contrast is too low. */
function measure() {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number);
    return text.startsWith('color(') ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
  const light = (colour) => {
    const [r, g, b] = colour.map((part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const found = [];
  let measured = 0;
  const note = (element, what, value, least) => {
    measured += 1;
    if (value < least) found.push(`${what} ${value.toFixed(2)} < ${least}: ${element.tagName}.${element.getAttribute('class') ?? ''} "${element.textContent.trim().slice(0, 40)}"`);
  };
  for (const element of document.querySelectorAll('body *')) {
    if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    const style = getComputedStyle(element);
    const texts = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
    if (texts && !element.disabled) {
      const ground = behind(element);
      const colour = over(parse(element instanceof SVGElement ? style.fill : style.color), ground);
      note(element, 'text', ratio(colour, ground), parseFloat(style.fontSize) >= 24 ? 3 : 4.5);
    }
    if (element.matches('input:not([type=checkbox], [type=file]), select, textarea')) {
      const ground = behind(element.parentElement);
      note(element, 'edge', ratio(over(parse(style.borderTopColor), ground), ground), 3);
      note(element, 'value', ratio(parse(style.color), behind(element)), 4.5);
    }
    if (element.matches('.curve, .point, .whisker')) {
      const ground = behind(element.closest('svg').parentElement);
      const paint = element.matches('.point') ? style.fill : style.stroke;
      note(element, 'line', ratio(over(parse(paint), ground), ground), 3);
    }
  }
  return { found: [...new Set(found)], measured };
}

/** What is too faint on `page`, and how much was measured. */
export function contrast(page) {
  return page.evaluate(measure);
}

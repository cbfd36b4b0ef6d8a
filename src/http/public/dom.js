/**
 * Elements from data.
 *
 * Guarantees: what comes from the server becomes text nodes and attributes, never markup; no element gets a style attribute.
 */

const SVG = 'http://www.w3.org/2000/svg';

/** @typedef {Node | string | number | null} Child null: nothing */

/**
 * @param {Element} element
 * @param {Record<string, string | number | null>} attributes null: without it
 * @param {Child[]} children
 */
function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) if (value !== null) element.setAttribute(name, String(value));
  for (const child of children) if (child !== null) element.append(child instanceof Node ? child : String(child));
  return element;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number | null>} [attributes]
 * @param {...Child} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  return /** @type {HTMLElement} */ (fill(document.createElement(tag), attributes, children));
}

/**
 * @param {string} tag
 * @param {Record<string, string | number | null>} [attributes]
 * @param {...Child} children
 */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/**
 * @param {string} id of an element of the page
 * @returns {HTMLElement}
 */
export function at(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A table that becomes a list of cards on narrow screens. The roles stay what they are when CSS changes how it is laid out.
 * @param {string} caption
 * @param {string[]} heads the first one is that of the rows' heads
 * @param {Child[][]} rows
 */
export function table(caption, heads, rows) {
  const head = heads.map((text) => h('th', { scope: 'col', role: 'columnheader' }, text));
  const body = rows.map((cells) =>
    h(
      'tr',
      { role: 'row' },
      ...cells.map((cell, i) =>
        i === 0
          ? h('th', { scope: 'row', role: 'rowheader' }, cell)
          : h('td', { role: 'cell', 'data-label': heads[i] ?? '' }, h('span', {}, cell)),
      ),
    ),
  );
  return h(
    'table',
    { role: 'table' },
    h('caption', {}, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...head)),
    h('tbody', { role: 'rowgroup' }, ...body),
  );
}

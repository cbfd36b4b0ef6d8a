/** What has happened, newest first, with the phases of failovers: from `event: happened`. */
import { byId, element } from './text.js';

const MOST = 500;
const GROUPS = {
  failover: ['failover', 'seeking-promotion', 'epoch-open', 'tenure-over'],
  member: ['member-lost', 'member-syncing', 'reintegration', 'member-in-sync'],
  repair: ['block-repaired', 'scrub-finished'],
};
const SIGNS = { failover: '⇄', 'member-lost': '✗', 'member-in-sync': '✓', poisoned: '✗', isolated: '!' };
const PHASES = [
  ['lastHeardMs', 'silence'],
  ['suspectedMs', 'until it asked'],
  ['registerMs', 'register'],
  ['openMs', 'opening the epoch'],
];

/** Of a node's process: ids begin anew with it. */
const seen = new Set();
const list = byId('events');
const filter = /** @type {HTMLSelectElement} */ (byId('event-filter'));

const isShown = (kind) => filter.value === '' || GROUPS[filter.value].includes(kind);

function phasesOf({ phases }) {
  const parts = PHASES.filter(([key]) => phases[key] !== null && phases[key] !== undefined).map(([key, name]) =>
    element('span', { text: `${name} ${Math.round(phases[key])} ms` }),
  );
  if (phases.total !== null) parts.push(element('span', { text: `in all ${Math.round(phases.total)} ms` }));
  return element('div', { class: 'phases' }, ...parts);
}

/** @param {{ id: number, atMs: number, node: string, volume: string, kind: string, text: string, fields: any }} event */
export function showHappened({ id, atMs, node, kind, text, fields }) {
  const key = `${node}/${id}/${atMs}`;
  if (seen.has(key)) return;
  seen.add(key);
  const at = new Date(atMs);
  const time = element('time', { datetime: at.toISOString(), text: at.toLocaleTimeString() });
  const line = element('li', { 'data-kind': kind }, time, `${SIGNS[kind] ?? '·'} ${node}: ${text}`);
  if (kind === 'failover' && fields?.phases) line.append(phasesOf(fields));
  line.hidden = !isShown(kind);
  list.prepend(line);
  while (list.children.length > MOST) list.lastElementChild?.remove();
  if (seen.size > 4 * MOST) for (const old of [...seen].slice(0, MOST)) seen.delete(old);
}

filter.addEventListener('change', () => {
  for (const line of list.children) {
    /** @type {HTMLElement} */ (line).hidden = !isShown(/** @type {HTMLElement} */ (line).dataset.kind);
  }
});

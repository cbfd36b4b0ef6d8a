/**
 * What has happened on the node that serves the page, newest first; a failover with its phases.
 *
 * Guarantees: at most KEPT entries; what a new connection tells again is there once.
 */
import { at, h } from './dom.js';
import { clock, millis } from './format.js';

const KEPT = 500;
const PHASES = [
  ['lastHeardMs', 'not heard of', 'until it was suspected'],
  ['suspectedMs', 'suspected', 'until the coordinator was asked'],
  ['registerMs', 'register', 'until the register named the new primary'],
  ['openMs', 'opening', 'until it served'],
];
const GROUPS = {
  failover: ['failover', 'seeking-promotion', 'epoch-open', 'following', 'tenure-over'],
  replicas: ['member-lost', 'member-syncing', 'reintegration', 'member-in-sync', 'replica-stopped'],
  trouble: ['isolated', 'poisoned', 'block-repaired', 'scrub-finished', 'not-hosted', 'replica-stopped'],
};

/** @param {Record<string, number | null>} phases */
function failover(phases) {
  const total = phases.total ?? 0;
  const bar = h('div', { class: 'phases', 'aria-hidden': 'true' });
  const words = h('dl', { class: 'phase-list' });
  for (const [i, [field, name, means]] of PHASES.entries()) {
    const ms = phases[field ?? ''] ?? null;
    const piece = h('span', { class: `phase phase-${i + 1}` }, String(i + 1));
    // Through the DOM: the policy refuses style attributes, not this.
    piece.style.flexGrow = String(total > 0 && ms !== null ? Math.max(0.02, ms / total) : 0.02);
    bar.append(piece);
    words.append(h('dt', {}, `${i + 1}. ${name}`), h('dd', {}, `${millis(ms)} ${means}`));
  }
  words.append(h('dt', {}, 'all of it'), h('dd', {}, millis(phases.total)));
  return h('div', { class: 'failover' }, bar, words);
}

/** @param {import('./types.js').Happening} happening */
function entryOf({ atMs, node, volume, kind, text, fields }) {
  const phases = kind === 'failover' && typeof fields?.phases === 'object' ? fields.phases : null;
  return h(
    'li',
    { 'data-kind': kind, 'data-volume': volume },
    h('time', { datetime: new Date(atMs).toISOString() }, clock(atMs)),
    h('span', { class: 'kind' }, kind),
    h('span', { class: 'what' }, text, h('span', { class: 'unseen' }, ` (on ${node})`)),
    phases === null ? null : failover(phases),
  );
}

export class Timeline {
  /** @type {Set<string>} of the entries on the page, oldest first */
  #known = new Set();
  #list = at('events');
  #filter = /** @type {HTMLSelectElement} */ (at('event-filter'));

  constructor() {
    this.#filter.addEventListener('change', () => {
      for (const entry of this.#list.children) this.#sift(/** @type {HTMLElement} */ (entry));
      this.#say();
    });
  }

  /** @param {import('./types.js').Happening} happening */
  add(happening) {
    const key = `${happening.node} ${happening.atMs} ${happening.id}`;
    if (this.#known.has(key)) return;
    this.#known.add(key);
    const entry = entryOf(happening);
    this.#sift(entry);
    this.#list.prepend(entry);
    while (this.#known.size > KEPT) {
      this.#known.delete(/** @type {string} */ (this.#known.values().next().value));
      this.#list.lastElementChild?.remove();
    }
    this.#say();
  }

  /** @param {HTMLElement} entry */
  #sift(entry) {
    const group = GROUPS[this.#filter.value];
    entry.hidden = group !== undefined && !group.includes(entry.dataset.kind ?? '');
  }

  #say() {
    at('events-none').hidden = this.#list.querySelector('li:not([hidden])') !== null;
  }
}

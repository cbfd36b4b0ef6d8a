/**
 * What replicas lack, block by block, as maps that empty.
 *
 * Guarantees: at most MAX_MAPS maps; a map that is told no more is marked as old and then removed; what it shows is also there
 * in words. How much of a cell is filled says how much is dirty, beside the colour.
 */
import { at, h } from './dom.js';
import { BLOCK_BYTES, bytes, clock, count, percent, span } from './format.js';

const MAX_MAPS = 16;
/** The rate is that of so long. */
const RATE_MS = 5000;
const OLD_MS = 3000;
const GONE_MS = 60_000;
const MAX_STRETCHES = 8;

/**
 * @typedef {object} Map1
 * @property {import('./types.js').Dirty} dirty
 * @property {Array<{ atMs: number, dirtyBlocks: number }>} history
 * @property {number} toldMs of this page's clock
 * @property {{ root: HTMLElement, canvas: HTMLCanvasElement, said: HTMLElement, where: HTMLElement }} parts
 */

/** Runs of neighbouring cells with something dirty, as words. @param {import('./types.js').Dirty} dirty */
export function stretchesOf({ cells, cellBlocks, blocks }) {
  const runs = [];
  for (let i = 0; i < cells.length; i++) {
    if (cells[i] === 0) continue;
    const first = i;
    let sum = 0;
    while (i < cells.length && cells[i] > 0) sum += cells[i++];
    const end = Math.min(blocks, i * cellBlocks);
    runs.push({ from: first * cellBlocks * BLOCK_BYTES, to: end * BLOCK_BYTES, dirtyBlocks: sum });
  }
  return runs;
}

/** @param {Array<{ atMs: number, dirtyBlocks: number }>} history @returns {number} bytes each second; 0: not known */
export function rateOf(history) {
  const [first, last] = [history[0], history.at(-1)];
  if (first === undefined || last === undefined || last.atMs <= first.atMs) return 0;
  const gone = first.dirtyBlocks - last.dirtyBlocks;
  return gone <= 0 ? 0 : (gone * BLOCK_BYTES * 1000) / (last.atMs - first.atMs);
}

export class HeatMaps {
  /** @type {Map<string, Map1>} */
  #maps = new Map();
  /** @type {import('./types.js').ClusterView | null} */
  #view = null;

  constructor() {
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#drawAll());
    new ResizeObserver(() => this.#drawAll()).observe(at('dirty'));
  }

  /** @param {import('./types.js').Dirty} dirty */
  add(dirty) {
    const key = `${dirty.volumeId} ${dirty.member}`;
    const known = this.#maps.get(key);
    if (known === undefined && this.#maps.size >= MAX_MAPS) return;
    const history = [...(known?.history ?? []), { atMs: dirty.atMs, dirtyBlocks: dirty.dirtyBlocks }].filter(
      ({ atMs }) => atMs > dirty.atMs - RATE_MS && atMs <= dirty.atMs,
    );
    const map = { dirty, history, toldMs: performance.now(), parts: known?.parts ?? partsOf(dirty) };
    this.#maps.set(key, map);
    if (known === undefined) this.#arrange();
    this.#show(map);
  }

  /** @param {import('./types.js').ClusterView} view */
  look(view) {
    this.#view = view;
    this.#arrange();
    for (const map of this.#maps.values()) this.#show(map);
  }

  /** Looks for maps that are told no more. @param {boolean} live */
  tick(live) {
    const nowMs = performance.now();
    let isGone = false;
    for (const [key, { toldMs, parts, dirty }] of this.#maps) {
      const old = nowMs - toldMs > OLD_MS && dirty.dirtyBlocks > 0;
      parts.root.dataset.old = String(old);
      if (live && nowMs - toldMs > (old ? GONE_MS / 6 : GONE_MS)) isGone = this.#maps.delete(key);
    }
    if (isGone) this.#arrange();
  }

  #arrange() {
    const shown = [...this.#maps.values()].map(({ parts }) => parts.root);
    const elsewhere = this.#elsewhere();
    const none = 'Nothing: every replica has every block, as far as this node knows.';
    at('dirty').replaceChildren(
      ...shown,
      ...elsewhere.map((text) => h('p', {}, text)),
      ...(shown.length + elsewhere.length === 0 ? [h('p', {}, none)] : []),
    );
  }

  /** Those that this node has no map of, because it is not the primary. */
  #elsewhere() {
    return (this.#view?.volumes ?? []).flatMap(({ volume, volumeId, primary, members }) =>
      members
        .filter(({ node, state }) => state !== 'in-sync' && !this.#maps.has(`${volumeId} ${node}`))
        .map(({ node, state, dirtyBytes }) => {
          const lacks = dirtyBytes === null ? 'how much it lacks is not known' : `it lacks ${bytes(dirtyBytes)}`;
          return `${volume}: ${node} is ${state}, ${lacks}. The map of it is told by the primary, ${primary || 'which there is none of'}.`;
        }),
    );
  }

  /** @param {Map1} map */
  #show({ dirty, history, parts }) {
    const { volume, volumeId, member, blocks, dirtyBlocks, atMs } = dirty;
    const state = this.#view?.volumes
      .find((one) => one.volumeId === volumeId)
      ?.members.find(({ node }) => node === member);
    // What the primary says; what was seen here includes the time before it began.
    const rate = state?.sync?.bytesPerSecond || rateOf(history);
    const lacks = dirtyBlocks * BLOCK_BYTES;
    const amount = `${count(dirtyBlocks)} of ${count(blocks)} blocks, ${bytes(lacks)}, ${percent(dirtyBlocks, blocks)}`;
    const falling =
      rate > 0 ? `, ${bytes(rate)}/s, about ${span(lacks / rate)} left` : ', not being copied at the moment';
    const isBack = state === undefined || state.state === 'in-sync';
    const nothing = isBack
      ? `${member} lacks nothing any more, since ${clock(atMs)}.`
      : `${member} lacks nothing yet, and is ${state.state}.`;
    const text = dirtyBlocks === 0 ? nothing : `${member} lacks ${amount}${falling}.`;
    parts.said.textContent = text;
    parts.root.dataset.dirtyBlocks = String(dirtyBlocks);
    parts.canvas.setAttribute('aria-label', `Map of ${volume}: ${text}`);
    const runs = stretchesOf(dirty);
    const named = runs
      .slice(0, MAX_STRETCHES)
      .map(({ from, to, dirtyBlocks: n }) => `${bytes(from)} to ${bytes(to)}: ${count(n)} blocks`);
    const more = runs.length > MAX_STRETCHES ? [`and ${runs.length - MAX_STRETCHES} more stretches`] : [];
    parts.where.replaceChildren(...[...named, ...more].map((line) => h('li', {}, line)));
    draw(parts.canvas, dirty);
  }

  #drawAll() {
    for (const { parts, dirty } of this.#maps.values()) draw(parts.canvas, dirty);
  }
}

/** @param {import('./types.js').Dirty} dirty */
function partsOf({ volume, member, cellBlocks }) {
  const canvas = /** @type {HTMLCanvasElement} */ (h('canvas', { class: 'heat', role: 'img' }));
  const said = h('p', { class: 'said' });
  const where = h('ul', { class: 'where' });
  const root = h(
    'article',
    { class: 'card map', 'data-member': member, 'data-volume': volume },
    h('h3', {}, `${volume} on ${member}`),
    said,
    canvas,
    h(
      'p',
      { class: 'small' },
      `Each cell is ${bytes(cellBlocks * BLOCK_BYTES)} of the volume, filled as far as it is dirty.`,
    ),
    h('details', {}, h('summary', {}, 'Which parts, in words'), where),
  );
  return { root, canvas, said, where };
}

/** @param {HTMLCanvasElement} canvas @param {import('./types.js').Dirty} dirty */
function draw(canvas, { cells, cellBlocks }) {
  const width = canvas.clientWidth;
  if (width === 0) return;
  const columns = Math.min(cells.length, width < 480 ? 32 : 64);
  const side = width / Math.max(columns, 16);
  const rows = Math.ceil(cells.length / columns);
  const scale = devicePixelRatio;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(rows * side * scale);
  const pen = canvas.getContext('2d');
  if (pen === null) return;
  const sheet = getComputedStyle(document.documentElement);
  const [clean, hot] = ['cell', 'hot'].map((name) => sheet.getPropertyValue(`--${name}`).trim());
  pen.scale(scale, scale);
  for (const [i, cell] of cells.entries()) {
    const x = (i % columns) * side;
    const y = Math.floor(i / columns) * side;
    const inner = Math.max(1, side - 1);
    pen.fillStyle = clean;
    pen.fillRect(x, y, inner, inner);
    if (cell === 0) continue;
    // One dirty block of many must be seen too.
    const height = inner * Math.min(1, Math.max(0.25, cell / cellBlocks));
    pen.fillStyle = hot;
    pen.fillRect(x, y + inner - height, inner, height);
  }
}

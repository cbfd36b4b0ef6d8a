/** Dirty blocks of members that are being brought in sync, as maps that empty: from `event: dirty`. */
import { byId, bytesText, durationText, element } from './text.js';

const BLOCK_BYTES = 4096;
const COLUMNS = 64;
const CELL = 8;
/** A map stays for a moment when it is empty, so that it is seen. */
const KEEP_MS = 4000;
/** Over so long the rate is taken. */
const RATE_MS = 5000;

/** By volume and member. */
const maps = new Map();

function make(key, { volume, member }) {
  const canvas = /** @type {HTMLCanvasElement} */ (element('canvas', { class: 'heat', role: 'img' }));
  const text = element('p', {});
  const box = element('div', {}, element('h3', { text: `${volume} on ${member}` }), canvas, text);
  byId('heat-maps').append(box);
  const map = { canvas, text, box, past: [], timer: 0 };
  maps.set(key, map);
  byId('reintegration').hidden = false;
  return map;
}

function remove(key) {
  maps.get(key)?.box.remove();
  maps.delete(key);
  byId('reintegration').hidden = maps.size === 0;
}

function paint(canvas, cells, cellBlocks) {
  const rows = Math.ceil(cells.length / COLUMNS);
  const [width, height] = [COLUMNS * CELL, rows * CELL];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = canvas.getContext('2d');
  if (context === null) return;
  const style = getComputedStyle(document.documentElement);
  context.clearRect(0, 0, width, height);
  context.fillStyle = style.getPropertyValue('--warn');
  cells.forEach((dirty, i) => {
    if (dirty === 0) return;
    // A single block is seen too.
    context.globalAlpha = 0.25 + 0.75 * Math.min(1, dirty / cellBlocks);
    context.fillRect((i % COLUMNS) * CELL, Math.floor(i / COLUMNS) * CELL, CELL - 1, CELL - 1);
  });
}

/** @param {{ atMs: number, volume: string, volumeId: string, member: string, blocks: number, dirtyBlocks: number, cells: number[], cellBlocks: number }} event */
export function showDirty(event) {
  const { atMs, volumeId, member, blocks, dirtyBlocks, cells, cellBlocks } = event;
  const key = `${volumeId}/${member}`;
  if (dirtyBlocks === 0 && !maps.has(key)) return;
  const map = maps.get(key) ?? make(key, event);
  paint(map.canvas, cells, cellBlocks);
  map.past.push({ atMs, dirtyBlocks });
  while (map.past.length > 2 && map.past[0].atMs < atMs - RATE_MS) map.past.shift();
  const [first] = map.past;
  const perSecond = atMs > first.atMs ? ((first.dirtyBlocks - dirtyBlocks) * 1000) / (atMs - first.atMs) : 0;
  const rate = perSecond > 0 ? `, ${bytesText(perSecond * BLOCK_BYTES)}/s` : '';
  const left = perSecond > 0 && dirtyBlocks > 0 ? `, about ${durationText(dirtyBlocks / perSecond)} left` : '';
  const text = `${dirtyBlocks} of ${blocks} blocks (${bytesText(dirtyBlocks * BLOCK_BYTES)}) differ${rate}${left}`;
  map.text.textContent = dirtyBlocks === 0 ? 'Nothing differs any more.' : text;
  map.canvas.setAttribute('aria-label', `Map of the blocks that differ on ${member}: ${text}`);
  map.canvas.dataset.dirtyBlocks = String(dirtyBlocks);
  clearTimeout(map.timer);
  // Also when nothing more is said of it: another node is primary now.
  map.timer = setTimeout(() => remove(key), KEEP_MS);
}

/** Journals of this node's replicas: how full they are, and when a checkpoint gave room back. */
import { at, h, table } from './dom.js';
import { DASH, bytes, clock, percent } from './format.js';

/** A checkpoint begins at this share of the journal, and writers wait from that one on: docs/architecture.md. */
const CHECKPOINT_SHARE = 3 / 8;
const WRITERS_WAIT_SHARE = 3 / 4;

export class Journals {
  /** @type {Map<string, { usedBytes: number, freed: string }>} by volume id, of the volumes that are told */
  #before = new Map();

  /** @param {import('./types.js').Rates} rates */
  add({ atMs, volumes }) {
    const before = this.#before;
    this.#before = new Map();
    for (const { volumeId, journalUsedBytes } of volumes) {
      const known = before.get(volumeId);
      const freed = (known?.usedBytes ?? 0) - journalUsedBytes;
      const text = freed > 0 ? `at ${clock(atMs)}: ${bytes(freed)}` : (known?.freed ?? DASH);
      this.#before.set(volumeId, { usedBytes: journalUsedBytes, freed: text });
    }
    const rows = volumes.map(({ volume, volumeId, journalBytes, journalUsedBytes }) => [
      volume,
      h(
        'span',
        { class: 'meter' },
        h('meter', {
          min: 0,
          max: journalBytes,
          low: journalBytes * CHECKPOINT_SHARE,
          high: journalBytes * WRITERS_WAIT_SHARE,
          optimum: 0,
          value: journalUsedBytes,
          'aria-label': `Journal of ${volume}`,
        }),
        ` ${bytes(journalUsedBytes)} of ${bytes(journalBytes)}, ${percent(journalUsedBytes, journalBytes)}`,
      ),
      `at ${bytes(journalBytes * CHECKPOINT_SHARE)}`,
      this.#before.get(volumeId)?.freed ?? DASH,
      `at ${bytes(journalBytes * WRITERS_WAIT_SHARE)}`,
    ]);
    const heads = ['Volume', 'In use', 'A checkpoint begins', 'One gave room back', 'Writers would wait'];
    at('journal').replaceChildren(table('Journals on this node', heads, rows));
  }
}

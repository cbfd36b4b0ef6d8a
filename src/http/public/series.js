/**
 * The last ten minutes of each volume's rates, as columns for plots.
 *
 * Guarantees: at most KEPT points of each of at most MAX_VOLUMES volumes; one that is told no more is forgotten.
 */

const KEPT = 600;
const MAX_VOLUMES = 256;
/** A longer pause between two points is a gap in the lines. */
const GAP_S = 3;
const MIB = 1024 * 1024;

/** @typedef {{ latest: import('./types.js').VolumeRates, atMs: number, columns: Array<Array<number | null>> }} Kept */

/** @param {number | null} us */
const ms = (us) => (us === null ? null : us / 1000);

/** The columns, the time first. @param {number} atS @param {import('./types.js').VolumeRates} rates */
function pointOf(atS, { reads, writes, fsync }) {
  return [
    atS,
    reads.perSecond,
    writes.perSecond,
    reads.bytesPerSecond / MIB,
    writes.bytesPerSecond / MIB,
    ms(reads.p50Us),
    ms(reads.p99Us),
    ms(writes.p50Us),
    ms(writes.p99Us),
    ms(fsync.p50Us),
    ms(fsync.p99Us),
  ];
}

export class Series {
  /** @type {Map<string, Kept>} by volume id */
  kept = new Map();

  /** @param {import('./types.js').Rates} rates */
  add({ atMs, volumes }) {
    const told = new Set(volumes.map(({ volumeId }) => volumeId));
    for (const volumeId of this.kept.keys()) if (!told.has(volumeId)) this.kept.delete(volumeId);
    for (const latest of volumes.slice(0, MAX_VOLUMES)) {
      const point = pointOf(atMs / 1000, latest);
      const known = this.kept.get(latest.volumeId) ?? { latest, atMs, columns: point.map(() => []) };
      // The newest is told again to a new connection.
      if (known.columns[0]?.at(-1) === point[0]) continue;
      if (point[0] - (known.columns[0]?.at(-1) ?? point[0]) > GAP_S)
        push(known, [point[0] - 1, ...point.slice(1).map(() => null)]);
      push(known, point);
      this.kept.set(latest.volumeId, { ...known, latest, atMs });
    }
  }
}

/** @param {Kept} kept @param {Array<number | null>} point */
function push({ columns }, point) {
  for (const [i, column] of columns.entries()) {
    column.push(point[i] ?? null);
    if (column.length > KEPT) column.shift();
  }
}

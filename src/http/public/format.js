/** Numbers, sizes and times as people read them. What is not known is a dash. */

const UNITS = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
export const DASH = '–';
export const BLOCK_BYTES = 4096;

/** @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  let left = value;
  let unit = 0;
  while (left >= 1024 && unit < UNITS.length - 1) {
    left /= 1024;
    unit++;
  }
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${UNITS[unit]}`;
}

/** @param {number | null | undefined} value */
export function count(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  return value >= 100 || Number.isInteger(value) ? Math.round(value).toLocaleString('en') : value.toFixed(1);
}

/** @param {number | null | undefined} us microseconds */
export function micros(us) {
  if (us === null || us === undefined) return DASH;
  if (us < 1000) return `${Math.round(us)} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(1)} s`;
}

/** @param {number | null | undefined} ms */
export function millis(ms) {
  if (ms === null || ms === undefined) return 'not known';
  return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @param {number} seconds a span to come, so it is only about */
export function span(seconds) {
  if (seconds < 1) return 'less than a second';
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

/** @param {number} atMs wall clock */
export function clock(atMs) {
  return new Date(atMs).toLocaleTimeString('en-GB');
}

/** @param {number} part @param {number} whole */
export function percent(part, whole) {
  if (whole <= 0) return DASH;
  const value = (100 * part) / whole;
  return part > 0 && value < 0.1 ? 'less than 0.1 %' : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

/** Whether one connection alone is active in this process, by the chunks that arrive. */

/** Another connection was active longer ago than this. */
const LONE_AFTER_MS = 10;

let last: object | null = null;
let changedAtMs = -Infinity;

/** Bytes arrived on that connection. */
export function noteActive(connection: object, nowMs: number): void {
  if (connection === last) return;
  last = connection;
  changedAtMs = nowMs;
}

export function isLone(): boolean {
  return performance.now() - changedAtMs > LONE_AFTER_MS;
}

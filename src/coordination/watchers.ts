/**
 * The connections that follow a register on the embedded coordinator. They are told that something happened, not what:
 * a client reads then (see `watcher.ts`).
 *
 * Guarantees: one that does not take what it is told is ended; its number is bounded by that of connections.
 */
import type { ServerResponse } from 'node:http';

/** Longer than any line; what stands in a socket beyond that, its peer does not take. */
const MAX_UNTAKEN_BYTES = 64 * 1024;
const KEEP_ALIVE_MS = 30_000;

export class Watchers {
  private readonly byVolume: Map<string, Set<ServerResponse>> = new Map();

  add(volumeId: string, response: ServerResponse): void {
    const others = this.byVolume.get(volumeId) ?? new Set();
    this.byVolume.set(volumeId, others.add(response));
    response.on('close', () => {
      others.delete(response);
      if (others.size === 0 && this.byVolume.get(volumeId) === others) this.byVolume.delete(volumeId);
    });
    response.socket?.setKeepAlive(true, KEEP_ALIVE_MS);
    response.writeHead(200, { 'content-type': 'application/x-ndjson', connection: 'close' });
    response.write('{"event":"watching"}\n');
  }

  tell(volumeId: string): void {
    for (const response of this.byVolume.get(volumeId) ?? []) {
      if (response.writableLength > MAX_UNTAKEN_BYTES) response.destroy();
      else response.write('{"event":"changed"}\n');
    }
  }

  close(): void {
    for (const others of this.byVolume.values()) for (const response of others) response.destroy();
  }
}

/**
 * One node without a coordinator: one volume folder, served. What `holdfast serve` runs.
 *
 * Guarantees: it listens only when recovery is complete; when the store fails or a worker is lost it stops answering
 * at once and reports through `onFatal` (the process is then to end); `close` drains, writes owed zeros for a moment,
 * and leaves a clean volume.
 */
import type { HoldfastError } from '../base/errors.ts';
import { PrimaryVolume } from '../replication/primary-volume.ts';
import { IoPool } from '../storage/io-pool.ts';
import { type OpenVolume, openVolume } from '../storage/volume-folder.ts';
import { isLone } from './lone-connection.ts';
import type { NbdDevice } from './nbd-device.ts';
import { NbdServer } from './nbd-server.ts';
import type { NbdTls } from './nbd-tls.ts';
import { ServedNbdDevice } from './served-nbd-device.ts';
import { type Log, Server, type ServerOptions } from './server.ts';
import { loneAdmin } from './write-holds.ts';

/** Owed zeros are written in the background, a run at a time, so often. */
const ZERO_EVERY_MS = 20;
/** At closing they are written for so long at most; the rest stays owed. */
const ZERO_AT_CLOSE_MS = 2000;
const RETRY_FULL_MS = 1000;
const DRAIN_MS = 5000;

export interface SingleNodeOptions extends Omit<ServerOptions, 'arena'> {
  dir: string;
  listen: string;
  /** NBD export on `host:port` or `unix:PATH`. */
  nbd?: string | undefined;
  /** TLS on it; null: none. */
  nbdTls?: NbdTls | null | undefined;
  readOnly?: boolean;
  durable?: boolean | undefined;
  /** Makes the volume if the folder holds none; given the pool. */
  prepare?: (pool: IoPool) => Promise<void>;
  progress?: (bytes: number) => void;
  log?: Log;
  onFatal: (error: HoldfastError) => void;
}

export class SingleNode {
  readonly pool: IoPool;
  readonly server: Server;
  readonly open: OpenVolume;
  readonly volume: PrimaryVolume;
  readonly address: string;
  /** URI of the NBD export, null without one. */
  readonly nbdUri: string | null;
  private readonly nbd: NbdServer | null;
  private readonly timers: NodeJS.Timeout[] = [];

  private constructor(parts: {
    pool: IoPool;
    server: Server;
    open: OpenVolume;
    volume: PrimaryVolume;
    address: string;
    nbd: NbdServer | null;
    nbdUri: string | null;
  }) {
    const { open, volume } = parts;
    this.pool = parts.pool;
    this.server = parts.server;
    this.open = open;
    this.volume = volume;
    this.address = parts.address;
    this.nbd = parts.nbd;
    this.nbdUri = parts.nbdUri;
    this.timers.push(
      setInterval(() => volume.owedZeros.tick(), ZERO_EVERY_MS).unref(),
      setInterval(() => {
        if (open.store.outOfSpace) open.store.retryParked();
      }, RETRY_FULL_MS).unref(),
    );
  }

  static async start(o: SingleNodeOptions): Promise<SingleNode> {
    let fatal = o.onFatal;
    const pool = new IoPool({ onLost: (error) => fatal(error) });
    pool.isLone = isLone;
    let open: OpenVolume | null = null;
    let server: Server | null = null;
    let nbd: NbdServer | null = null;
    try {
      await o.prepare?.(pool);
      open = await openVolume(o.dir, pool, { durable: o.durable, ...(o.progress && { progress: o.progress }) });
      const opened = open;
      let holdable: PrimaryVolume | null = null;
      const admin = loneAdmin(() => ({ name: opened.store.name, volume: holdable, kv: null }));
      const serving = (server = new Server({ ...o, arena: pool.arena, admin }));
      const devices: NbdDevice[] = [];
      const { limits } = serving;
      const log: Log = (level, message, fields) => serving.log(level, message, fields);
      nbd = o.nbd === undefined ? null : new NbdServer({ limits, log, tls: o.nbdTls, devices: () => devices });
      let failed = false;
      fatal = (error) => {
        if (failed) return;
        failed = true;
        // Whoever waits for an answer must not get one from what is left in a queue.
        serving.destroy();
        nbd?.destroy();
        o.onFatal(error);
      };
      const volume = new PrimaryVolume(opened.store, pool.arena, {
        readOnly: o.readOnly ?? false,
        onFailed: (error) => {
          // A failed sync leaves pages that look clean and are not on disk: the next opening must know.
          const sync = /fdatasync/.test(error.message);
          const marked = sync ? opened.store.markPoisoned(error.message) : Promise.resolve();
          void marked.finally(() => fatal(error));
        },
      });
      holdable = volume;
      server.add(volume);
      devices.push(new ServedNbdDevice(volume, pool.arena));
      const address = await server.listen(o.listen);
      const nbdUri = nbd === null ? null : await nbd.listen(o.nbd!);
      return new SingleNode({ pool, server, open: opened, volume, address, nbd, nbdUri });
    } catch (error) {
      server?.destroy();
      nbd?.destroy();
      await open?.close().catch(() => {});
      await pool.close();
      throw error;
    }
  }

  /** @returns false if requests under way could not be ended: the journal holds them, and the process is to end */
  async close(): Promise<boolean> {
    for (const timer of this.timers) clearInterval(timer);
    await this.nbd?.drain(DRAIN_MS);
    await this.nbd?.close();
    await this.server.close();
    const endAt = performance.now() + ZERO_AT_CLOSE_MS;
    while (performance.now() < endAt && (await this.volume.owedZeros.writeSome()));
    // Records that a full disk holds up stay in the journal: the next opening applies them.
    const drained = await Promise.race([
      this.volume.drain().then(() => true),
      new Promise<boolean>((resolve) => setTimeout(() => resolve(false), DRAIN_MS).unref()),
    ]);
    if (!drained) return false;
    await this.open.close();
    await this.pool.close();
    return true;
  }
}

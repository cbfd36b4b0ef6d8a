/**
 * The gateway: NBD for an application on one side, a server's volume through the client library on the other. What
 * `holdfast nbd` runs.
 *
 * Guarantees: while the server is away requests wait, by default without limit, and are neither lost nor executed twice;
 * what an NBD client was told is durable on the server; nothing but the volume that it was started with is ever served,
 * so if another one takes its address the gateway ends every NBD connection and says so through `onEnded`.
 */
import type { HoldfastError } from '../base/errors.ts';
import { connect, type Volume } from '../client/index.ts';
import { NbdServer } from '../node/nbd-server.ts';
import type { NbdTls } from '../node/nbd-tls.ts';
import { DEFAULT_LIMITS, type Log } from '../node/server.ts';
import { ClientNbdDevice } from './client-nbd-device.ts';

/** How long `close` waits for answers under way. */
const CLOSE_MS = 5000;
export const DEFAULT_CONNECTIONS = 4;
/** The NBD connections bound what is under way, so no call may be refused here: the most that the library allows. */
const MAX_QUEUED = 10_000_000;

export interface GatewayOptions {
  /** `holdfast://host:port/name` */
  url: string;
  /** `host:port` or `unix:PATH` */
  listen: string;
  readOnly?: boolean | undefined;
  /** For NBD clients; null: none. */
  tls?: NbdTls | null | undefined;
  /** To the server. */
  connections?: number | undefined;
  /** How long requests wait for a server that is away before they fail. Default: without limit. */
  retryMs?: number | undefined;
  /** Who answers reads. Default: the primary. */
  reads?: 'primary' | 'any' | undefined;
  log?: Log | undefined;
  /** The volume cannot be served any more; no NBD connection is left. Called once at most. */
  onEnded: (error: HoldfastError) => void;
}

export class Gateway {
  readonly volume: Volume;
  /** With the export's name. */
  readonly nbdUri: string;
  readonly readOnly: boolean;
  private readonly nbd: NbdServer;

  private constructor(volume: Volume, nbd: NbdServer, nbdUri: string, readOnly: boolean) {
    this.volume = volume;
    this.nbd = nbd;
    this.nbdUri = nbdUri;
    this.readOnly = readOnly;
  }

  /** @throws HoldfastError as `connect` of the client library; BUSY, ACCESS, INVALID_ARGUMENT for the NBD address */
  static async start(o: GatewayOptions): Promise<Gateway> {
    const log = o.log ?? (() => {});
    const retryMs = o.retryMs ?? Infinity;
    let nbd: NbdServer | null = null;
    let ended: HoldfastError | null = null;
    const volume = await connect(o.url, {
      connections: o.connections ?? DEFAULT_CONNECTIONS,
      retryMs,
      reads: o.reads,
      maxQueued: MAX_QUEUED,
      clientName: 'holdfast nbd',
      events: {
        lost: (error) => {
          const waiting = retryMs === Infinity ? 'until it is back, without limit' : `for up to ${retryMs} ms`;
          log('warn', `the server is lost; requests wait ${waiting}`, { reason: error.message });
        },
        back: (awayMs) => log('info', 'the server is back', { awayMs: Math.round(awayMs) }),
        moved: (from, to, awayMs) => {
          log('info', 'another server is primary', { from, to, awayMs: Math.round(awayMs) });
        },
        gaveUp: (error, forGood) => {
          if (!forGood)
            return log('error', 'the server did not come back in time; requests fail', { reason: error.message });
          ended = error;
          // Before the requests that wait are failed: their clients see the connection end, and no error of a disk.
          nbd?.destroy();
          if (nbd !== null) o.onEnded(error);
        },
      },
    });
    try {
      const device = new ClientNbdDevice(volume, o.readOnly ?? false);
      const starting = new NbdServer({
        limits: DEFAULT_LIMITS,
        log,
        tls: o.tls,
        devices: () => [device],
        prepare: () => device.refresh(),
      });
      nbd = starting;
      const uri = await starting.listen(o.listen);
      if (ended !== null) throw ended;
      return new Gateway(volume, starting, withExport(uri, volume.name), device.export.readOnly);
    } catch (error) {
      nbd?.destroy();
      await volume.close();
      throw error;
    }
  }

  /**
   * Takes no more requests, waits for the answers under way for some seconds, and ends all connections.
   * @returns false if some could not be waited for: the process is to end
   */
  async close(): Promise<boolean> {
    await this.nbd.drain(CLOSE_MS);
    await this.nbd.close();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<boolean>((resolve) => (timer = setTimeout(() => resolve(false), CLOSE_MS)));
    const closed = await Promise.race([this.volume.close().then(() => true), late]);
    clearTimeout(timer);
    return closed;
  }
}

function withExport(uri: string, name: string): string {
  const exported = `/${encodeURIComponent(name)}`;
  return uri.includes('+unix:') ? uri.replace('://', `://${exported}`) : uri + exported;
}

/** The connections of a volume: opened together, and one picked for each call. */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import type { VolumeInfo } from '../protocol/handshake.ts';
import type { VolumeAddress } from './address.ts';
import { Connection, type Shared } from './connection.ts';
import type { Settings } from './options.ts';
import { Outages } from './outages.ts';
import { Scout } from './scout.ts';
import { Servers } from './servers.ts';

export class Connections {
  readonly shared: Shared;
  /** What the volume was when it was first seen, but for its size: the largest that was heard of. */
  known: VolumeInfo | null = null;
  private readonly all: readonly Connection[];
  private next = 0;

  /** Nothing is connected yet: that is the affair of `open`, or of the first call. */
  constructor(address: VolumeAddress, settings: Settings) {
    const servers = new Servers(address.servers);
    const { volume } = address;
    this.shared = {
      volume,
      settings,
      servers,
      scout: new Scout(servers, volume, settings),
      outages: new Outages(settings.events),
      accept: (info) => this.accept(info),
    };
    this.all = Array.from({ length: settings.connections }, () => new Connection(this.shared));
  }

  /** What a server says of the volume. @throws HoldfastError NO_SUCH_VOLUME when it is another one */
  accept(info: VolumeInfo): void {
    const known = (this.known ??= info);
    this.shared.servers.volumeId ??= info.volumeId;
    if (Buffer.compare(known.volumeId, info.volumeId) === 0 && info.sizeBytes >= known.sizeBytes) {
      // Volumes grow. A backup that has not heard of it yet is left until it has.
      this.known = { ...known, sizeBytes: info.sizeBytes };
      return;
    }
    throw new HoldfastError('NO_SUCH_VOLUME', {
      operation: 'ATTACH',
      volume: known.name,
      detail:
        `the server has another volume there now: id ${hex(info.volumeId)}, ${info.sizeBytes} bytes, ` +
        `instead of id ${hex(known.volumeId)}, ${known.sizeBytes} bytes`,
      remedy: 'connect anew to use that one',
    });
  }

  /** @throws HoldfastError UNREACHABLE, or what the server answers; then nothing of it is left */
  async open(): Promise<VolumeInfo> {
    try {
      // The first one alone: where nothing answers, one attempt says so.
      await this.all[0]!.open();
      await Promise.all(this.all.slice(1).map((connection) => connection.open()));
    } catch (error) {
      this.end(asHoldfastError(error));
      throw error;
    }
    return this.known!;
  }

  /** The connection with the least to do; a connected one before one that is not. */
  pick(): Connection {
    const { all } = this;
    let best = all[this.next++ % all.length]!;
    for (const other of all) {
      const order =
        Number(best.failure !== null) - Number(other.failure !== null) ||
        Number(other.ready) - Number(best.ready) ||
        best.load - other.load;
      if (order > 0) best = other;
    }
    return best;
  }

  /** Calls under way fail. */
  end(error: HoldfastError): void {
    for (const connection of this.all) connection.end(error);
    this.shared.scout.close();
  }

  /** Calls under way are waited for while the server is there. */
  async close(): Promise<void> {
    await Promise.all(this.all.map((connection) => connection.close()));
    this.shared.scout.close();
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

/**
 * A volume of a server somewhere as an NBD device: the client library under the same NBD connection that a node has.
 *
 * Guarantees: those of NbdDevice; a request waits while the server is away and is sent again when it is back, without
 * being executed twice. Payloads are not copied between the two sockets: the memory that a WRITE is received into leaves
 * as it lies, and what a READ brings is put where its reply leaves from. That memory is bounded by what the NBD
 * connections may have in flight; the client library's own bounds make requests wait, never fail.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import { asHoldfastError } from '../base/errors.ts';
import type { Volume } from '../client/index.ts';
import type { NbdExport } from '../nbd/exports.ts';
import type { NbdDevice, ReadPieces, Room } from '../node/nbd-device.ts';
import type { Done } from '../replication/served-volume.ts';

/** How long a handshake waits for the server. */
const REFRESH_MS = 1000;

const nothingToRelease = (): void => {};

export class ClientNbdDevice implements NbdDevice {
  private readonly volume: Volume;
  private readonly readOnly: boolean;
  private marks: string[] = [];

  /** @param readOnly refuse writes, whatever the volume allows */
  constructor(volume: Volume, readOnly: boolean) {
    this.volume = volume;
    this.readOnly = readOnly || volume.readOnly;
  }

  get export(): NbdExport {
    const { name, sizeBytes } = this.volume;
    const { readOnly, marks } = this;
    return { name, sizeBytes, readOnly, marks, description: `Holdfast volume ${name}, by a gateway` };
  }

  /** Asks for marks and size, which a handshake has to know; while the server is away those of before have to do. */
  async refresh(): Promise<void> {
    const options = { deadlineMs: REFRESH_MS };
    const [asked] = await Promise.all([
      this.volume.marks(options).catch(() => null),
      this.volume.info(options).catch(() => null),
    ]);
    if (asked !== null) this.marks = asked.map(({ name }) => name);
  }

  room(_offsetBytes: number, lengthBytes: number): Room {
    return { bytes: Buffer.allocUnsafe(lengthBytes) };
  }

  drop(): void {}

  write({ bytes }: Room, offsetBytes: number, done: Done): void {
    settle(this.volume.write(offsetBytes, bytes, { owned: true }), done);
  }

  read(offsetBytes: number, lengthBytes: number, done: ReadPieces): void {
    const bytes = Buffer.allocUnsafe(lengthBytes);
    settle(this.volume.readInto(offsetBytes, bytes), (error) => {
      done(error, error === null ? [bytes] : [], nothingToRelease);
    });
  }

  zero(offsetBytes: number, lengthBytes: number, done: Done): void {
    settle(this.volume.zero(offsetBytes, lengthBytes), done);
  }

  trim(offsetBytes: number, lengthBytes: number, done: Done): void {
    settle(this.volume.trim(offsetBytes, lengthBytes), done);
  }

  flush(done: Done): void {
    settle(this.volume.flush(), done);
  }

  allocation(offsetBytes: number, lengthBytes: number, limit: number): Promise<readonly Extent[]> {
    return this.volume.extents(offsetBytes, lengthBytes, { limit });
  }

  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): Promise<readonly ChangedExtent[]> {
    return this.volume.changes(mark, offsetBytes, lengthBytes, { limit });
  }
}

function settle(work: Promise<void>, done: Done): void {
  work.then(
    () => done(null),
    (error: unknown) => done(asHoldfastError(error)),
  );
}

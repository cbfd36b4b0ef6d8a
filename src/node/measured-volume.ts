/**
 * A volume as it is served, with everything that clients ask of it counted and timed: our protocol and NBD alike.
 *
 * Guarantees: each call goes on unchanged, with its own slot and callback; nothing is allocated for a call while no more
 * than MAX_SPARE are under way. The time runs from the call, which is when the request is here as a whole and has memory,
 * to its callback, which is when its answer is handed to the connection.
 */
import type { ChangedExtent, Extent } from '../base/device.ts';
import type { HoldfastError } from '../base/errors.ts';
import type { OperationMeter, VolumeMeter } from '../base/meters.ts';
import type { Position } from '../base/position.ts';
import type { Attachment, Done, Expired, ReadDone, ServedVolume, VolumeInfo } from '../replication/served-volume.ts';
import type { Slot } from '../storage/arena.ts';
import type { Mark, MarkChange } from '../storage/marks.ts';

const MAX_SPARE = 4096;
/** For a read and for what has no CRC alike. */
type Answer = (error: HoldfastError | null, crc?: number) => void;

/** One call that is under way; used again for another one when it is over. */
class Call {
  /** What the volume calls when it is done. */
  readonly done: Answer;
  private readonly volume: MeasuredVolume;
  private meter!: OperationMeter;
  private bytes = 0;
  private beganMs = 0;
  private answer!: ReadDone;

  constructor(volume: MeasuredVolume) {
    this.volume = volume;
    this.done = (error, crc = -1) => {
      const { answer, bytes } = this;
      this.meter.answered((performance.now() - this.beganMs) * 1000, bytes, error !== null);
      this.volume.over(this, bytes);
      answer(error, crc);
    };
  }

  begin(meter: OperationMeter, bytes: number, answer: ReadDone): this {
    this.meter = meter;
    this.bytes = bytes;
    this.answer = answer;
    this.beganMs = performance.now();
    return this;
  }
}

export class MeasuredVolume implements ServedVolume {
  private readonly inner: ServedVolume;
  private readonly meter: VolumeMeter;
  private readonly spare: Call[] = [];

  constructor(inner: ServedVolume, meter: VolumeMeter) {
    this.inner = inner;
    this.meter = meter;
  }

  private begin(meter: OperationMeter, bytes: number, answer: ReadDone | Done): Answer {
    this.meter.inFlight++;
    this.meter.inFlightBytes += bytes;
    return (this.spare.pop() ?? new Call(this)).begin(meter, bytes, answer).done;
  }

  /** For a call of this volume. */
  over(call: Call, bytes: number): void {
    this.meter.inFlight--;
    this.meter.inFlightBytes -= bytes;
    if (this.spare.length < MAX_SPARE) this.spare.push(call);
  }

  read(offsetBytes: number, lengthBytes: number, slot: Slot, done: ReadDone): void {
    const { read } = this.meter.operations;
    this.inner.read(offsetBytes, lengthBytes, slot, this.begin(read, lengthBytes, done));
  }

  write(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    slot: Slot,
    crcsKnown: boolean,
    done: Done,
    expired?: Expired,
  ): void {
    const measured = this.begin(this.meter.operations.write, lengthBytes, done);
    this.inner.write(attachment, request, offsetBytes, lengthBytes, slot, crcsKnown, measured, expired);
  }

  zero(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired?: Expired,
  ): void {
    const measured = this.begin(this.meter.operations.zero, lengthBytes, done);
    this.inner.zero(attachment, request, offsetBytes, lengthBytes, measured, expired);
  }

  trim(
    attachment: Attachment | null,
    request: number,
    offsetBytes: number,
    lengthBytes: number,
    done: Done,
    expired?: Expired,
  ): void {
    const measured = this.begin(this.meter.operations.trim, lengthBytes, done);
    this.inner.trim(attachment, request, offsetBytes, lengthBytes, measured, expired);
  }

  flush(done: Done): void {
    this.inner.flush(this.begin(this.meter.operations.flush, 0, done));
  }

  // --- what is not counted ----------------------------------------------------------------------------------------------

  info(): VolumeInfo {
    return this.inner.info();
  }

  attach(
    session: bigint,
    generation: number,
    since: Position | null,
    revoked: () => void,
    done: (error: HoldfastError | null, attachment: Attachment | null) => void,
  ): void {
    this.inner.attach(session, generation, since, revoked, done);
  }

  detach(attachment: Attachment): void {
    this.inner.detach(attachment);
  }

  whenReadable(done: Done): void {
    this.inner.whenReadable(done);
  }

  extents(offsetBytes: number, lengthBytes: number, limit: number): Extent[] {
    return this.inner.extents(offsetBytes, lengthBytes, limit);
  }

  mark(attachment: Attachment | null, request: number, change: MarkChange, done: Done): void {
    this.inner.mark(attachment, request, change, done);
  }

  marks(): Mark[] {
    return this.inner.marks();
  }

  changes(mark: string, offsetBytes: number, lengthBytes: number, limit: number): ChangedExtent[] {
    return this.inner.changes(mark, offsetBytes, lengthBytes, limit);
  }
}

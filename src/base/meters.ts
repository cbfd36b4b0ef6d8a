/**
 * What is counted of a volume where the work is done: operations of clients, batches of the journal, the time of workers.
 * Pure.
 *
 * Guarantees: counts only grow; to count allocates nothing.
 */
import { Buckets } from './buckets.ts';

/** One kind of operation of clients. */
export class OperationMeter {
  bytes = 0;
  errors = 0;
  /** Microseconds from the request to its answer. */
  readonly latency: Buckets = new Buckets();

  answered(us: number, bytes: number, failed: boolean): void {
    this.latency.record(us);
    if (failed) this.errors++;
    else this.bytes += bytes;
  }
}

export const OPERATIONS = ['read', 'write', 'zero', 'trim', 'flush'] as const;
export type OperationName = (typeof OPERATIONS)[number];

/** A volume as its clients see it, whatever they speak. */
export class VolumeMeter {
  readonly operations: Record<OperationName, OperationMeter>;
  /** Requests that are not answered, and the bytes that they are about. */
  inFlight = 0;
  inFlightBytes = 0;

  constructor() {
    const meter = (): OperationMeter => new OperationMeter();
    this.operations = { read: meter(), write: meter(), zero: meter(), trim: meter(), flush: meter() };
  }
}

/** A volume as its disk sees it. */
export class DiskMeter {
  /** Microseconds of fdatasync: of the journal, and of the other files. */
  readonly journalSyncs: Buckets = new Buckets();
  readonly otherSyncs: Buckets = new Buckets();
  /** Records in a batch of the journal. */
  readonly batchRecords: Buckets = new Buckets();
}

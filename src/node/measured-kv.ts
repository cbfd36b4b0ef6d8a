/**
 * A key-value volume as it is served, with what clients ask of it counted and timed, whatever they speak: GETs, scans and
 * sizes as reads, transactions as writes. Bytes are those of values (and of keys that were scanned).
 *
 * Guarantees: each call goes on unchanged. Watches, which wait, are not counted.
 */
import type { VolumeMeter } from '../base/meters.ts';
import type {
  Entry,
  KvDone,
  KvInfo,
  KvVolume,
  RequestId,
  ScanPage,
  ScanRequest,
  Transaction,
  TransactionResult,
  WatchPage,
  WatchRequest,
} from '../kv/operations.ts';

const bytesOf = (entries: ReadonlyArray<Entry | null>): number =>
  entries.reduce((sum, entry) => sum + (entry?.value?.length ?? 0), 0);

export class MeasuredKv implements KvVolume {
  private readonly inner: KvVolume;
  private readonly meter: VolumeMeter;

  constructor(inner: KvVolume, meter: VolumeMeter) {
    this.inner = inner;
    this.meter = meter;
  }

  private measured<T>(operation: 'read' | 'write', done: KvDone<T>, bytes: (result: T) => number): KvDone<T> {
    const { meter } = this;
    const beganMs = performance.now();
    meter.inFlight++;
    return (error, result, stale) => {
      meter.inFlight--;
      const failed = error !== null || result === null;
      meter.operations[operation].answered((performance.now() - beganMs) * 1000, failed ? 0 : bytes(result), failed);
      done(error, result, stale);
    };
  }

  info(): KvInfo {
    return this.inner.info();
  }

  get(keys: string[], done: KvDone<Array<Entry | null>>): void {
    this.inner.get(keys, this.measured('read', done, bytesOf));
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.inner.scan(
      request,
      this.measured('read', done, ({ entries }) => bytesOf(entries)),
    );
  }

  size(done: KvDone<number>): void {
    this.inner.size(this.measured('read', done, () => 0));
  }

  watch(request: WatchRequest, done: KvDone<WatchPage>): void {
    this.inner.watch(request, done);
  }

  execute(transaction: Transaction, id: RequestId | null, done: KvDone<TransactionResult>): void {
    let bytes = 0;
    for (const step of transaction.steps)
      if ('value' in step && step.value instanceof Uint8Array) bytes += step.value.length;
    this.inner.execute(
      transaction,
      id,
      this.measured('write', done, () => bytes),
    );
  }
}

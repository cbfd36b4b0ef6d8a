/**
 * A key-value volume that answers GETs and scans with what this replica knows, marked as stale, when nobody vouches for
 * it within a while: the choice of availability (`--when-isolated available`).
 *
 * Guarantees: what is not marked is linearizable as ever; changes are executed by the volume alone, or not at all.
 */
import type {
  Entry,
  Key,
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

export class AvailableKv implements KvVolume {
  private readonly volume: KvVolume;
  private readonly stale: KvVolume;
  private readonly patienceMs: number;

  constructor(volume: KvVolume, stale: KvVolume, patienceMs: number) {
    this.volume = volume;
    this.stale = stale;
    this.patienceMs = patienceMs;
  }

  info(): KvInfo {
    return this.volume.info();
  }

  /** The first answer counts; a refusal is none. */
  private either<T>(ask: (volume: KvVolume, done: KvDone<T>) => void, done: KvDone<T>): void {
    let over = false;
    const finish: KvDone<T> = (error, result, stale) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      done(error, result, stale);
    };
    const timer = setTimeout(() => over || ask(this.stale, finish), this.patienceMs);
    ask(this.volume, (error, result) => {
      if (error?.retryable === true && !over) ask(this.stale, finish);
      else finish(error, result);
    });
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.either((volume, give) => volume.get(keys, give), done);
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.either((volume, give) => volume.scan(request, give), done);
  }

  size(done: KvDone<number>): void {
    this.volume.size(done);
  }
  watch(request: WatchRequest, done: KvDone<WatchPage>): void {
    this.volume.watch(request, done);
  }
  execute(transaction: Transaction, id: RequestId | null, done: KvDone<TransactionResult>): void {
    this.volume.execute(transaction, id, done);
  }
}

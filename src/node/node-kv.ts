/**
 * A key-value volume as the RESP port of a node sees it: answered here where this node may, else by whoever may.
 *
 * Guarantees: a transaction is forwarded only if it was not executed here; no answer is stale, whatever the node gives to
 * others: nothing on this port could mark it.
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
} from '../kv/operations.ts';

export type PortVolume = Pick<KvVolume, 'info' | 'get' | 'scan' | 'size' | 'execute'>;

/** Asks the other nodes. */
export interface Forwarded extends Omit<PortVolume, 'info'> {
  close(): void;
}

export interface NodeKvParts {
  /** What this node serves of it at this moment; null: nothing. */
  local: () => KvVolume | null;
  /** What is known of it here, served or not. */
  about: () => KvInfo;
  forwarded: Forwarded;
}

export class NodeKv implements PortVolume {
  private readonly o: NodeKvParts;

  constructor(parts: NodeKvParts) {
    this.o = parts;
  }

  info(): KvInfo {
    return this.o.local()?.info() ?? this.o.about();
  }

  /** Tried here first. */
  private first<T>(ask: (volume: Omit<PortVolume, 'info'>, done: KvDone<T>) => void, done: KvDone<T>): void {
    const { local, forwarded } = this.o;
    const here = local();
    if (here === null) return ask(forwarded, done);
    ask(here, (error, result) => {
      if (error?.code === 'NOT_PRIMARY') ask(forwarded, done);
      else done(error, result);
    });
  }

  get(keys: Key[], done: KvDone<Array<Entry | null>>): void {
    this.first((volume, give) => volume.get(keys, give), done);
  }

  scan(request: ScanRequest, done: KvDone<ScanPage>): void {
    this.first((volume, give) => volume.scan(request, give), done);
  }

  size(done: KvDone<number>): void {
    this.first((volume, give) => volume.size(give), done);
  }

  /** What was begun here and cut short has an unknown outcome; NOT_PRIMARY says that it was not begun. */
  execute(transaction: Transaction, id: RequestId | null, done: KvDone<TransactionResult>): void {
    this.first((volume, give) => volume.execute(transaction, id, give), done);
  }
}

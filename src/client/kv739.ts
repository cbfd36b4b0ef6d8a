/**
 * The calls of the course's key-value store (CS 739: `init, get, put, die, partition, shutdown`) with its return codes,
 * over `connectKv`: what was written for it runs on Holdfast.
 *
 * Guarantees: a client reads from, stops and cuts off the servers that it named in `init` and no others; nothing is thrown,
 * `lastError` says why a call failed; a PUT that returned 0 or 1 is durable on every server that is ALIVE.
 *
 * `die` and `partition` need nodes with `--enable-faults`. Whoever started a server starts it again: `holdfast up`, or
 * what supervises it.
 */
import { type ErrorCode, HoldfastError, asHoldfastError } from '../base/errors.ts';
import { formatAddress, parseServer } from './address.ts';
import { admin } from './admin.ts';
import { Credentials } from './credentials.ts';
import { type KvStore, connectKv } from './kv.ts';
import { Link } from './link.ts';
import { locateOver } from './scout.ts';

export interface Kv739Options {
  /** Name of the key-value volume. Default: the only one of the servers. */
  volume?: string | undefined;
  /** For each call: how long failures of servers are waited for. Default 30 s. */
  timeoutMs?: number | undefined;
  /** Default 128 bytes, as the course has it. */
  maxKeyBytes?: number | undefined;
  /** Default 2048 bytes. */
  maxValueBytes?: number | undefined;
  /** Whether GETs may be answered by who is cut off from all others, see `--when-isolated available`. Default false. */
  allowStale?: boolean | undefined;
}

export interface GetResult {
  /** 0: found, 1: absent, -1: failed. */
  code: 0 | 1 | -1;
  value: string | null;
}

export interface Put739Result {
  /** 0: there was an old value, 1: there was none, -1: refused, nothing was done, -2: it may have been done, or not. */
  code: 0 | 1 | -1 | -2;
  oldValue: string | null;
}

/** How long a server may take to show that it is ALIVE, or to take an order. */
const ANSWER_MS = 3000;
/** A PUT that ends so may have been done. With any other error it was not. */
const UNKNOWN: ReadonlySet<ErrorCode> = new Set(['OUTCOME_UNKNOWN', 'DEADLINE', 'ABORTED', 'CONNECTION_LOST']);

export class Kv739 {
  /** Why the last call failed; null: it did not. */
  lastError: HoldfastError | null = null;
  private readonly options: Required<{ [K in keyof Kv739Options]: NonNullable<Kv739Options[K]> }>;
  private servers: readonly string[] = [];
  private store: KvStore | null = null;
  private initializing = false;

  constructor(options: Kv739Options = {}) {
    const { volume = '', timeoutMs = 30_000, maxKeyBytes = 128, maxValueBytes = 2048, allowStale = false } = options;
    this.options = { volume, timeoutMs, maxKeyBytes, maxValueBytes, allowStale };
  }

  /**
   * @param servers `host:port` each, where clients connect
   * @returns -1: called before, no list, an empty one, a name that is none, or a server that is not ALIVE
   */
  init(servers: readonly string[] | null): Promise<0 | -1> {
    return this.code(async () => {
      if (this.store !== null || this.initializing) throw refused('init', 'called before');
      if (!servers?.length) throw refused('init', 'no servers');
      this.initializing = true;
      try {
        const named = servers.map((server) => addressOf('init', server));
        await Promise.all(named.map((server) => this.checkAlive(server)));
        const { timeoutMs: retryMs, allowStale } = this.options;
        this.store = await connectKv(this.url(named), { reads: 'listed', retryMs, allowStale });
        this.servers = named;
      } finally {
        this.initializing = false;
      }
    });
  }

  private url(servers: readonly string[]): string {
    const scheme = Credentials.forBareAddress().secure ? 'holdfasts-kv' : 'holdfast-kv';
    return `${scheme}://${servers.join(',')}/${encodeURIComponent(this.options.volume)}`;
  }

  /** Who is ALIVE answers GETs; where that was chosen, so does who is cut off from all others. */
  private async checkAlive(server: string): Promise<void> {
    const { allowStale } = this.options;
    const store = await connectKv(this.url([server]), { reads: 'listed', retryMs: ANSWER_MS, allowStale });
    try {
      await store.get('any');
    } finally {
      await store.close();
    }
  }

  /** After it every call fails, until `init`. @returns -1: not initialised */
  shutdown(): Promise<0 | -1> {
    return this.code(async () => {
      const store = this.initialised('shutdown');
      this.store = null;
      this.servers = [];
      await store.close();
    });
  }

  async get(key: string): Promise<GetResult> {
    let value: string | null = null;
    const code = await this.code(async () => {
      const store = this.initialised('get');
      this.checkKey('get', key);
      value = (await store.get(key, { deadlineMs: this.options.timeoutMs }))?.value.toString('utf8') ?? null;
    });
    return { code: code === 0 && value === null ? 1 : code, value };
  }

  async put(key: string, value: string): Promise<Put739Result> {
    let oldValue: string | null = null;
    const code = await this.code(async () => {
      const store = this.initialised('put');
      this.checkKey('put', key);
      const { maxValueBytes, timeoutMs } = this.options;
      const bytes = typeof value === 'string' ? Buffer.byteLength(value) : 0;
      if (bytes === 0) throw refused('put', 'an empty value');
      if (bytes > maxValueBytes) throw refused('put', `a value of ${bytes} bytes, the limit is ${maxValueBytes}`);
      const { previous } = await store.put(key, value, { previous: true, deadlineMs: timeoutMs });
      oldValue = previous?.toString('utf8') ?? null;
    });
    if (code === -1) return { code: UNKNOWN.has(this.lastError!.code) ? -2 : -1, oldValue: null };
    return { code: oldValue === null ? 1 : 0, oldValue };
  }

  /**
   * Ends a server: `clean` in good order (SIGTERM), else at once (SIGKILL).
   * @returns -1: not initialised, not one of its servers, no answer
   */
  die(server: string, clean: 0 | 1): Promise<0 | -1> {
    return this.code(async () => {
      const address = this.permitted('die', server);
      await admin(address, { op: 'fault', kind: clean === 1 ? 'stop' : 'kill' }, { timeoutMs: ANSWER_MS });
    });
  }

  /**
   * Cuts a server off from all servers of the volume, both ways, but for those of `reachable`, from which it is cut off no
   * more. It stays reachable for clients and for the coordinator.
   * @returns -1: not initialised, one of them is not one of its servers, no answer
   */
  partition(server: string, reachable: readonly string[] | null): Promise<0 | -1> {
    return this.code(async () => {
      const address = this.permitted('partition', server);
      if (!Array.isArray(reachable)) throw refused('partition', 'no list of reachable servers');
      const wanted = reachable.map((one) => this.permitted('partition', one as string));
      const names = await Promise.all([address, ...wanted].map(nodeOf));
      const others = (await this.nodes(address)).filter((node) => node !== names[0]);
      const [open, cut] = [true, false].map((is) => others.filter((node) => names.includes(node) === is));
      if (open!.length > 0) await fault(address, { kind: 'heal', from: open });
      if (cut!.length > 0) await fault(address, { kind: 'partition', from: cut });
    });
  }

  /** All that have a replica of the volume, as that node knows. */
  private async nodes(address: string): Promise<string[]> {
    const hello = { session: 0n, generation: 0, client: 'kv739' };
    const signal = AbortSignal.timeout(ANSWER_MS);
    const { link } = await Link.open(parseServer(address)!, hello, ANSWER_MS, signal, Credentials.forBareAddress());
    try {
      return (await locateOver(link, this.options.volume, ANSWER_MS)).members.map(({ node }) => node);
    } finally {
      link.destroy();
    }
  }

  private initialised(operation: string): KvStore {
    if (this.store !== null) return this.store;
    throw new HoldfastError('NOT_ATTACHED', { operation, detail: 'not initialised', remedy: 'call init first' });
  }

  private permitted(operation: string, server: string): string {
    this.initialised(operation);
    const address = addressOf(operation, server);
    if (this.servers.includes(address)) return address;
    const detail = `${address} was not named in init`;
    throw new HoldfastError('ACCESS', { operation, peer: address, detail });
  }

  private checkKey(operation: string, key: string): void {
    const bytes = typeof key === 'string' ? Buffer.byteLength(key) : 0;
    const { maxKeyBytes } = this.options;
    if (bytes === 0) throw refused(operation, 'an empty key');
    if (bytes > maxKeyBytes) throw refused(operation, `a key of ${bytes} bytes, the limit is ${maxKeyBytes}`);
  }

  private async code(work: () => Promise<void>): Promise<0 | -1> {
    try {
      await work();
      this.lastError = null;
      return 0;
    } catch (error) {
      this.lastError = asHoldfastError(error);
      return -1;
    }
  }
}

function refused(operation: string, detail: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation, detail });
}

function addressOf(operation: string, server: string): string {
  const address = typeof server === 'string' ? parseServer(server) : null;
  if (address === null) throw refused(operation, `"${server}" is no server: write host:port`);
  return formatAddress(address);
}

async function fault(address: string, request: object): Promise<Record<string, unknown>> {
  return admin(address, { op: 'fault', ...request }, { timeoutMs: ANSWER_MS });
}

async function nodeOf(address: string): Promise<string> {
  return String((await fault(address, { kind: 'status' }))['node']);
}

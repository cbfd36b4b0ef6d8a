/**
 * Registers in etcd, through its JSON gateway: for sites that run one.
 *
 *     PREFIX/registers/VOLUMEID   the register, as JSON
 *     PREFIX/names/NAME           the volume's id: one name, one volume
 *     PREFIX/nodes/NODE           what a node said last, on a lease
 *
 * Guarantees: those of `Coordinator`. A change is one transaction that compares the revision at which the expected
 * version was read; it is sent once. Reads are etcd's linearizable ones, and go to another member when one is silent.
 */
import { randomBytes } from 'node:crypto';
import { HoldfastError } from '../base/errors.ts';
import {
  checkNewRegister,
  checkNextRegister,
  checkNodeInfo,
  checkRegister,
  checkVolumeId,
  given,
} from './check-register.ts';
import { type CallTimes, Endpoints } from './endpoints.ts';
import { EtcdSession, type EtcdLogin } from './etcd-session.ts';
import { type KeyValue, base64, keyValuesOf, prefixRange, txnOf } from './etcd-wire.ts';
import type { Endpoint } from './http-call.ts';
import {
  type CasResult,
  type Coordinator,
  NODE_TTL_MS,
  type NewRegister,
  type NextRegister,
  type NodeInfo,
  type Register,
  type SeenNode,
  changedMeanwhile,
  noSuchRegister,
  registerExists,
  successor,
} from './register.ts';
import { Watcher } from './watcher.ts';

/** Registers of one reply: it stays below 4 MiB, a common bound of gRPC. */
const PAGE = 128;

export interface EtcdClientOptions extends CallTimes {
  endpoints: Endpoint[];
  /** Without a slash at its end. */
  prefix: string;
  login?: EtcdLogin | undefined;
  /** How often a watch reads without being told to. Default 5 s. */
  pollMs?: number | undefined;
}

interface Stored {
  register: Register;
  modRevision: string;
}

export class EtcdClient implements Coordinator {
  private readonly session: EtcdSession;
  private readonly prefix: string;
  private readonly pollMs: number;
  private readonly watches: Set<Watcher> = new Set();
  private lease: string | null = null;

  constructor(options: EtcdClientOptions) {
    this.session = new EtcdSession(new Endpoints(options.endpoints, options), options.login ?? null);
    this.prefix = options.prefix;
    this.pollMs = options.pollMs ?? 5000;
  }

  async read(volumeId: string): Promise<Register | null> {
    return (await this.stored(volumeId, 'read'))?.register ?? null;
  }

  async create(register: NewRegister): Promise<Register> {
    const operation = 'create';
    const registerId = randomBytes(16).toString('hex');
    const made: Register = { ...checkNewRegister(register, given(operation)), registerId, version: 1 };
    const [key, name] = [this.registerKey(made.volumeId), this.nameKey(made.volume)];
    const found = await this.txn(operation, {
      compare: [key, name].map((each) => ({ key: base64(each), target: 'CREATE', create_revision: '0' })),
      success: [put(key, JSON.stringify(made)), put(name, made.volumeId)],
      failure: [range(key), range(name)],
    });
    if (found === null) return made;
    const other = found.find((each) => each.key === name)?.value ?? made.volumeId;
    throw registerExists(made.volume, other);
  }

  async compareAndSet(expectedVersion: number, next: NextRegister): Promise<CasResult> {
    const operation = 'compare-and-set';
    const wanted = checkNextRegister(next, given(operation));
    const current = await this.stored(wanted.volumeId, operation);
    if (current === null) throw noSuchRegister(operation, wanted.volumeId);
    const register = successor(current.register, expectedVersion, wanted);
    if (register === null) return { outcome: 'refused', register: current.register };
    const key = this.registerKey(wanted.volumeId);
    const found = await this.txn(operation, {
      compare: [unchanged(key, current)],
      success: [put(key, JSON.stringify(register))],
      failure: [range(key)],
    });
    if (found === null) return { outcome: 'done', register };
    if (found.length === 0) throw noSuchRegister(operation, wanted.volumeId);
    return { outcome: 'refused', register: this.parse(found[0]!, operation).register };
  }

  async remove(volumeId: string, expectedVersion: number): Promise<void> {
    const operation = 'remove';
    const current = await this.stored(volumeId, operation);
    if (current === null) throw noSuchRegister(operation, volumeId);
    if (current.register.version !== expectedVersion) {
      throw changedMeanwhile(operation, current.register, expectedVersion);
    }
    const [key, name] = [this.registerKey(volumeId), this.nameKey(current.register.volume)];
    const found = await this.txn(operation, {
      compare: [unchanged(key, current)],
      success: [key, name].map((each) => ({ request_delete_range: { key: base64(each) } })),
      failure: [range(key)],
    });
    if (found === null) return;
    if (found.length === 0) throw noSuchRegister(operation, volumeId);
    throw changedMeanwhile(operation, this.parse(found[0]!, operation).register, expectedVersion);
  }

  async list(): Promise<Register[]> {
    const operation = 'list';
    const { range_end } = prefixRange(this.registerKey(''));
    const registers: Register[] = [];
    let from = this.registerKey('');
    // Every page by itself is linearizable; that is all that a list over several volumes promises.
    for (;;) {
      const body = { key: base64(from), range_end, limit: String(PAGE) };
      const kvs = keyValuesOf(await this.session.call('/v3/kv/range', body, operation, true), operation);
      registers.push(...kvs.map((kv) => this.parse(kv, operation).register));
      if (kvs.length < PAGE) return registers;
      from = `${kvs.at(-1)!.key}\0`;
    }
  }

  watch(volumeId: string, changed: (register: Register) => void): Watcher {
    checkVolumeId(volumeId, given('watch'));
    const watcher: Watcher = new Watcher({
      read: () => this.read(volumeId),
      stream: (signal, poke) => this.session.watch(base64(this.registerKey(volumeId)), signal, poke),
      changed,
      pollMs: this.pollMs,
      closed: () => this.watches.delete(watcher),
    });
    this.watches.add(watcher);
    return watcher;
  }

  async announce(node: NodeInfo): Promise<void> {
    const operation = 'announce';
    const info = checkNodeInfo(node, given(operation));
    if (this.lease !== null && !(await this.session.keepAlive(this.lease, operation))) this.lease = null;
    this.lease ??= await this.session.grant(NODE_TTL_MS / 1000, operation);
    const value = { key: base64(`${this.prefix}/nodes/${info.node}`), value: base64(JSON.stringify(info)) };
    await this.session.call('/v3/kv/put', { ...value, lease: this.lease }, operation, true);
  }

  async nodes(): Promise<SeenNode[]> {
    const operation = 'nodes';
    const body = prefixRange(`${this.prefix}/nodes/`);
    const kvs = keyValuesOf(await this.session.call('/v3/kv/range', body, operation, true), operation);
    const seen = await Promise.all(
      kvs.map(async (kv): Promise<SeenNode | null> => {
        const seenAgoMs = await this.session.renewedAgoMs(kv.lease, operation);
        // Its lease ended between the two questions.
        if (seenAgoMs === null) return null;
        return { ...checkNodeInfo(parsed(kv.value), spoilt(kv, operation)), seenAgoMs };
      }),
    );
    return seen.filter((each) => each !== null);
  }

  async close(): Promise<void> {
    for (const watch of this.watches) watch.close();
    this.session.close();
  }

  private registerKey(volumeId: string): string {
    return `${this.prefix}/registers/${volumeId}`;
  }

  private nameKey(volume: string): string {
    return `${this.prefix}/names/${volume}`;
  }

  private async stored(volumeId: string, operation: string): Promise<Stored | null> {
    const key = this.registerKey(checkVolumeId(volumeId, given(operation)));
    const reply = await this.session.call('/v3/kv/range', { key: base64(key) }, operation, true);
    const [kv] = keyValuesOf(reply, operation);
    return kv === undefined ? null : this.parse(kv, operation);
  }

  private parse(kv: KeyValue, operation: string): Stored {
    const register = checkRegister(parsed(kv.value), spoilt(kv, operation));
    if (kv.key === this.registerKey(register.volumeId)) return { register, modRevision: kv.modRevision };
    throw new HoldfastError('DAMAGED', { operation, detail: `the key ${kv.key} holds another volume's register` });
  }

  private async txn(operation: string, body: object): Promise<KeyValue[] | null> {
    return txnOf(await this.session.call('/v3/kv/txn', body, operation, false), operation);
  }
}

const put = (key: string, value: string): object => ({ request_put: { key: base64(key), value: base64(value) } });
const range = (key: string): object => ({ request_range: { key: base64(key) } });

function unchanged(key: string, { modRevision }: Stored): object {
  return { key: base64(key), target: 'MOD', mod_revision: modRevision };
}

function spoilt(
  kv: KeyValue,
  operation: string,
): { operation: string; code: 'DAMAGED'; where: string; remedy: string } {
  const remedy = 'find out who else writes under this prefix; restore the key as it was';
  return { operation, code: 'DAMAGED', where: `the key ${kv.key}`, remedy };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

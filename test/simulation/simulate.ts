/** One seeded run of a cluster: clients, faults, and the checks afterwards. */
import { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { Position } from '../../src/base/position.ts';
import { ALL_RULES, DEFAULT_TIMES, type Rules } from '../../src/replication/rules.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { BLOCKS, Cluster, type SimNode } from './cluster.ts';
import { type BlockOp, violation } from './linearizable.ts';
import { World } from './world.ts';

const FAULTS_MS = 6000;
const HEAL_MS = 12_000;
const END_MS = 16_000;
/** A client that hears nothing for so long tries again elsewhere; some wait longer, and get the answers of machines that slept. */
const PATIENCE_MS = 350;
const LONG_PATIENCE_MS = 5000;

export interface SimulationResult {
  /** What was violated; null: nothing. */
  wrong: string | null;
  log: readonly string[];
  operations: number;
  failovers: number;
}

export interface SimulationOptions {
  nodes?: number;
  rules?: Partial<Rules>;
  /** Suspicion comes right after the promise has run out, and messages may be late by as much. */
  tight?: boolean;
  /** Only faults of that kind: the primary alone with its clients, or a backup that is killed and at once there again. */
  only?: 'isolation' | 'restarts';
}

class Client {
  private readonly name: string;
  private readonly cluster: Cluster;
  private readonly histories: BlockOp[][];
  private readonly values: { next: number };
  private session: bigint;
  private generation = 0;
  private since: Position | null = null;
  private request = 0;
  private volume: PrimaryVolume | null = null;
  private node: SimNode | null = null;
  private attachment: Attachment | null = null;
  answered = 0;
  stopAtMs = Infinity;
  idle = false;

  constructor(cluster: Cluster, name: string, histories: BlockOp[][], values: { next: number }, session: bigint) {
    this.cluster = cluster;
    this.name = name;
    this.histories = histories;
    this.values = values;
    this.session = session;
  }

  private get world(): World {
    return this.cluster.world;
  }

  start(): void {
    this.next();
  }

  private next(): void {
    const { world } = this;
    if (world.nowMs >= this.stopAtMs) {
      this.idle = true;
      return;
    }
    world.after(world.random.next() * this.cluster.thinkMs, () => {
      const count = world.random.chance(0.7) ? 1 : 1 + world.random.below(4);
      const first = world.random.below(this.cluster.hotBlocks - count + 1);
      if (world.random.chance(this.cluster.writeShare)) this.write(first, count);
      else this.read(first, count);
    });
  }

  /** Calls with an attachment, again and again until an answer comes. */
  private attempt(
    call: (volume: PrimaryVolume, node: SimNode, done: (error: HoldfastError | null, value?: number[]) => void) => void,
    over: (error: HoldfastError | null, value?: number[]) => void,
  ): void {
    const { world } = this;
    let settled = false;
    const again = (): void => {
      if (settled) return;
      settled = true;
      this.leave();
      world.after(20 + world.random.next() * 60, () => this.attempt(call, over));
    };
    world.after(world.random.chance(0.7) ? PATIENCE_MS : LONG_PATIENCE_MS, again);
    this.attached((error) => {
      if (settled) return;
      if (error?.code === 'OUTCOME_UNKNOWN') {
        settled = true;
        return over(error);
      }
      if (error !== null) return again();
      const { volume, node } = this;
      node!.receive(() => {
        if (settled || this.volume !== volume || node!.volume !== volume) return;
        call(volume!, node!, (failure, value) => {
          // The answer of a process that died, or serves no more, does not arrive.
          if (settled || node!.volume !== volume || this.volume !== volume) return;
          if (failure !== null && (failure.retryable || failure.code === 'STALE_GENERATION')) return again();
          settled = true;
          over(failure, value);
        });
      });
    });
  }

  private leave(): void {
    if (this.attachment !== null && this.node!.volume === this.volume) this.volume!.detach(this.attachment);
    this.volume = null;
    this.attachment = null;
  }

  private attached(then: (error: HoldfastError | null) => void): void {
    if (this.volume !== null && this.node!.volume === this.volume) return then(null);
    const serving = this.cluster.nodes.filter((node) => node.volume !== null);
    if (serving.length === 0) return then(new HoldfastError('UNREACHABLE'));
    const node = serving[this.world.random.below(serving.length)]!;
    const volume = node.volume!;
    this.generation++;
    node.receive(() => {
      if (node.volume !== volume) return then(new HoldfastError('UNREACHABLE'));
      volume.attach(
        this.session,
        this.generation,
        this.since,
        () => {},
        (error, attachment) => {
          if (error !== null) return then(error);
          this.since ??= volume.info().position;
          this.node = node;
          this.volume = volume;
          this.attachment = attachment;
          then(null);
        },
      );
    });
  }

  private op(kind: BlockOp['kind'], value: number): BlockOp {
    return { kind, value, calledMs: this.world.nowMs, answeredMs: Infinity, who: this.name };
  }

  private write(first: number, count: number): void {
    const value = this.values.next++;
    const request = ++this.request;
    const ops = Array.from({ length: count }, () => this.op('write', value));
    ops.forEach((op, i) => this.histories[first + i]!.push(op));
    this.attempt(
      (volume, node, done) => {
        const slot = node.disk!.arena.take(count);
        if (slot === null) return;
        new Uint32Array(slot.payload.buffer, slot.payload.byteOffset, count * 1024).fill(value);
        volume.write(this.attachment, request, first * BLOCK_BYTES, count * BLOCK_BYTES, slot, false, done);
      },
      (error) => {
        if (error?.code === 'OUTCOME_UNKNOWN') {
          this.session += 1000n;
          this.generation = 0;
          this.since = null;
          this.request = 0;
        } else if (error === null) {
          this.answered++;
          for (const op of ops) op.answeredMs = this.world.nowMs;
        } else this.world.note(`${this.name} write failed: ${error.message}`);
        this.next();
      },
    );
  }

  private read(first: number, count: number): void {
    const called = this.world.nowMs;
    this.attempt(
      (volume, node, done) => {
        const { arena } = node.disk!;
        const slot = arena.take(count);
        if (slot === null) return;
        volume.read(first * BLOCK_BYTES, count * BLOCK_BYTES, slot, (error) => {
          const words = new Uint32Array(slot.payload.buffer, slot.payload.byteOffset, count * 1024);
          const values = Array.from({ length: count }, (_, i) => (torn(words, i) ? -1 : words[i * 1024]!));
          arena.release(slot);
          done(error, values);
        });
      },
      (error, values) => {
        if (error === null) {
          this.answered++;
          values!.forEach((value, i) => {
            const op: BlockOp = { ...this.op('read', value), calledMs: called, answeredMs: this.world.nowMs };
            this.histories[first + i]!.push(op);
          });
        } else this.world.note(`${this.name} read failed: ${error.message}`);
        this.next();
      },
    );
  }
}

function torn(words: Uint32Array, block: number): boolean {
  return words[block * 1024] !== words[block * 1024 + 1023];
}

/** One kind of fault, again and again. */
function unleash(cluster: Cluster, only: 'isolation' | 'restarts'): void {
  const { world } = cluster;
  const strike = (): void => {
    if (world.nowMs > FAULTS_MS) return;
    const primary = cluster.nodes.find(({ volume }) => volume !== null);
    if (only === 'isolation' && primary !== undefined) {
      cluster.isolate(primary.name);
      world.after(1800, () => cluster.mend());
    } else if (only === 'restarts') {
      const backup = cluster.nodes.find((node) => node !== primary && node.disk !== null);
      if (backup !== undefined) {
        // It comes back while its primary does not hear of it.
        if (primary !== undefined) cluster.isolate(primary.name);
        cluster.register.unreachable.clear();
        backup.crash(false);
        world.after(10, () => void backup.boot());
        world.after(600, () => cluster.mend());
      }
    }
    world.after(3000, strike);
  };
  world.after(1800, strike);
}

function unleashFaults(cluster: Cluster): void {
  const { world } = cluster;
  const { random } = world;
  const some = (): SimNode => cluster.nodes[random.below(cluster.nodes.length)]!;
  const strike = (): void => {
    if (world.nowMs > FAULTS_MS) return;
    const roll = random.below(10);
    if (roll < 4) {
      const node = random.chance(0.5) ? (cluster.nodes.find(({ volume }) => volume !== null) ?? some()) : some();
      const backMs = random.chance(0.5) ? 30 + random.next() * 200 : random.next() * 2500;
      if (node.disk !== null && random.chance(0.25)) {
        void node.stop().then(() => world.after(backMs, () => node.disk === null && void node.boot()));
      } else if (node.disk !== null) {
        node.crash(random.chance(0.5));
        world.after(backMs, () => node.disk === null && void node.boot());
      }
    } else if (roll < 5) some().pause(50 + random.next() * 2000);
    else if (roll < 6) {
      cluster.isolate((cluster.nodes.find(({ volume }) => volume !== null) ?? some()).name);
      world.after(200 + random.next() * 3000, () => cluster.mend());
    } else if (roll < 9) {
      const [a, b] = [some(), some()];
      if (a !== b) {
        cluster.cut(a.name, b.name, random.chance(0.5));
        world.after(50 + random.next() * 2000, () => cluster.mend());
      }
    } else {
      cluster.register.loss = 0.5;
      world.after(random.next() * 1500, () => (cluster.register.loss = 0));
    }
    world.after(100 + random.next() * 900, strike);
  };
  world.after(300 + random.next() * 1200, strike);
}

export async function simulate(seed: number, options: SimulationOptions = {}): Promise<SimulationResult> {
  const world = new World(seed);
  const names = ['a', 'b', 'c', 'd', 'e'].slice(0, options.nodes ?? 2);
  const cluster = await Cluster.make(world, names, { ...ALL_RULES, ...options.rules });
  cluster.slowNetwork = world.random.chance(0.3);
  cluster.diskMs = world.random.chance(0.3) ? 8 : 1.5;
  if (world.random.chance(0.5)) {
    cluster.hotBlocks = 4;
    cluster.thinkMs = 4;
  }
  if (options.only !== undefined) {
    // Many readers and few writers see the most of a machine that does not know better.
    cluster.hotBlocks = 4;
    cluster.thinkMs = 6;
    cluster.writeShare = 0.15;
  }
  if (options.tight === true) {
    cluster.times = { ...DEFAULT_TIMES, suspicionMs: DEFAULT_TIMES.promiseMs + 10 };
    cluster.slowNetwork = true;
    cluster.lateMs = 450;
  }
  const histories: BlockOp[][] = Array.from({ length: BLOCKS }, () => []);
  const values = { next: 1 };
  const ids = options.only === undefined ? [1n, 2n, 3n] : [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 9n, 10n];
  const clients = ids.map((id) => new Client(cluster, `client ${id}`, histories, values, id));
  const result = (wrong: string | null): SimulationResult => ({
    wrong,
    log: world.log,
    operations: clients.reduce((sum, { answered }) => sum + answered, 0),
    failovers: cluster.register.current.epoch,
  });
  try {
    for (const node of cluster.nodes) void node.boot();
    for (const client of clients) client.start();
    if (options.only === undefined) unleashFaults(cluster);
    else unleash(cluster, options.only);
    await world.run(FAULTS_MS + 500);
    // Faults are over: everybody comes back.
    cluster.mend();
    cluster.register.loss = 0;
    cluster.slowNetwork = false;
    await world.run(FAULTS_MS + 3500);
    for (const node of cluster.nodes) {
      if (node.disk === null) void node.boot();
      else if (node.replica?.role === 'stopped') return result(`${node.name} has stopped for good`);
    }
    for (const client of clients) client.stopAtMs = HEAL_MS;
    await world.run(END_MS);
    const { inSync } = cluster.register.current;
    if (inSync.length !== names.length) return result(`after the faults only ${inSync.join(' ')} are in sync`);
    if (!clients.every(({ idle }) => idle)) return result('a client waits for ever');
    for (const [block, history] of histories.entries()) {
      const wrong = violation(history);
      if (wrong !== null) return result(`block ${block}: ${wrong}`);
    }
    return result(await difference(cluster));
  } catch (error) {
    return result(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

/** Byte for byte, by what a verified read gives. */
async function difference(cluster: Cluster): Promise<string | null> {
  const { world } = cluster;
  const contents: Uint8Array[] = [];
  for (const { store, disk, name } of cluster.nodes) {
    const slot = disk!.arena.take(BLOCKS);
    if (slot === null) return `${name}: memory is lost: ${disk!.arena.slotsInUse} slots are in use`;
    let over: string | null | undefined;
    store!.readBlocks(0, BLOCKS, slot, (error) => (over = error?.message ?? null));
    await world.run(world.nowMs + 100);
    if (over !== null) return `${name} cannot be read: ${over}`;
    contents.push(slot.payload.slice(0, BLOCKS * BLOCK_BYTES));
    disk!.arena.release(slot);
  }
  for (let block = 0; block < BLOCKS; block++) {
    const part = (bytes: Uint8Array): Uint8Array => bytes.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
    if (contents.some((bytes) => Buffer.compare(part(bytes), part(contents[0]!)) !== 0)) {
      const words = contents.map((bytes) => new Uint32Array(bytes.buffer, block * BLOCK_BYTES, 1)[0]);
      return `block ${block} differs between the replicas: ${words.join(', ')}`;
    }
  }
  return null;
}

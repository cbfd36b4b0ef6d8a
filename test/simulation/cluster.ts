/**
 * A whole cluster in one process, under a seed: replicas on simulated disks, streams that delay and break, a register
 * whose answers come late or never, machines that crash, stop for a while and come back.
 */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { Arena } from '../../src/storage/arena.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { formatStore, openStore } from '../../src/storage/open-store.ts';
import type { CasOutcome, GroupRegister } from '../../src/replication/group-register.ts';
import type { PeerLink, PeerMessage } from '../../src/replication/peer-messages.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { Replica } from '../../src/replication/replica.ts';
import { ALL_RULES, DEFAULT_TIMES, type Rules, type Times } from '../../src/replication/rules.ts';
import { type Image, SimulatedDisk, crashImage } from '../support/simulated-disk.ts';
import type { World } from './world.ts';

const MiB = 1024 * 1024;
export const BLOCKS = 24;
const SIZE = { sizeBytes: BLOCKS * BLOCK_BYTES, journalBytes: 4 * MiB };
const VOLUME_ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
const TICK_MS = 20;
/** How long a compare-and-set waits for its answer. */
const CAS_MS = 300;

/** One end of a stream. */
class SimLink implements PeerLink {
  readonly node: string;
  other!: SimLink;
  open = true;
  private readonly owner: SimNode;
  private readonly cluster: Cluster;
  private lastArrivalMs = 0;
  private queue: Array<{ message: PeerMessage; sent: (() => void) | undefined }> = [];

  constructor(cluster: Cluster, owner: SimNode, node: string) {
    this.cluster = cluster;
    this.owner = owner;
    this.node = node;
  }

  send(message: PeerMessage, sent?: () => void): void {
    if (!this.open) return sent?.();
    this.queue.push({ message, sent });
    const { world } = this.cluster;
    this.lastArrivalMs = Math.max(world.nowMs + this.cluster.latencyMs(), this.lastArrivalMs + 0.001);
    world.after(this.lastArrivalMs - world.nowMs, () => this.deliver());
  }

  private deliver(): void {
    const { world } = this.cluster;
    if (!this.open) return this.drop();
    // What is under way when a link is cut arrives when it is mended, if the stream still stands.
    if (this.cluster.isCut(this.owner.name, this.node)) return world.after(15, () => this.deliver());
    const next = this.queue.shift();
    if (next === undefined) return;
    const message = copyOf(next.message);
    const { other } = this;
    other.owner.receive(() => other.open && other.owner.replica?.received(other, message));
    next.sent?.();
  }

  private drop(): void {
    for (const { sent } of this.queue.splice(0)) sent?.();
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.drop();
    const { other } = this;
    this.cluster.world.after(this.cluster.latencyMs(), () => other.broken());
  }

  /** The other end is gone. */
  broken(): void {
    if (!this.open) return;
    this.open = false;
    this.drop();
    this.owner.receive(() => this.owner.replica?.closed(this.node, this));
    this.owner.links.delete(this);
  }

  /** The process at this end is gone. */
  die(): void {
    this.open = false;
    this.queue = [];
    const { other } = this;
    this.cluster.world.after(this.cluster.latencyMs(), () => other.broken());
  }
}

function copyOf(message: PeerMessage): PeerMessage {
  if (message.type === 'RECORD') return { ...message, bytes: message.bytes.slice() };
  if (message.type === 'COPY') return { ...message, payload: message.payload?.slice() ?? null };
  if (message.type === 'FINISH') return { ...message, sessions: message.sessions.map((body) => body.slice()) };
  return { ...message };
}

export class SimNode {
  readonly name: string;
  replica: Replica | null = null;
  store: BlockStore | null = null;
  disk: SimulatedDisk | null = null;
  volume: PrimaryVolume | null = null;
  readonly links: Set<SimLink> = new Set();
  private readonly cluster: Cluster;
  image: Image;
  private start: Image | null = null;
  private life = 0;
  /** Stopped like by SIGSTOP: what comes waits. */
  private held: Array<() => void> | null = null;

  constructor(cluster: Cluster, name: string, image: Image) {
    this.cluster = cluster;
    this.name = name;
    this.image = image;
  }

  get up(): boolean {
    return this.replica !== null;
  }

  /** Something reaches the process. */
  receive(run: () => void): void {
    if (this.held !== null) this.held.push(run);
    else run();
  }

  /** In this life of the process only. */
  private timed(delayMs: number, run: () => void): void {
    const { life } = this;
    this.cluster.world.after(delayMs, () => {
      if (this.life === life) this.receive(() => this.life === life && run());
    });
  }

  async boot(): Promise<void> {
    const { world, rules } = this.cluster;
    const life = ++this.life;
    const disk = new SimulatedDisk(this.image, world.random.below(2 ** 31), new Arena(8 * MiB));
    disk.schedule = (run) => world.after(0.05 + world.random.next() * this.cluster.diskMs, run);
    this.start = { data: disk.files.data.slice(), journal: disk.files.journal.slice(), meta: disk.files.meta.slice() };
    disk.recording = true;
    this.disk = disk;
    const defer = (run: () => void): void => world.after(0, run);
    const { store } = await openStore(disk, { sizes: disk.sizes, defer, where: this.name });
    if (this.life !== life) return;
    this.store = store;
    world.note(`${this.name} starts: ${store.replica.state}, epoch ${store.epoch}, ${at(store)}`);
    const live = (run: () => void): void => {
      if (this.life === life) this.receive(() => this.life === life && run());
    };
    this.replica = new Replica({
      node: this.name,
      store,
      arena: disk.arena,
      rules,
      times: this.cluster.times,
      ports: {
        now: () => world.nowMs,
        random: () => world.random.next(),
        log: (message, fields) =>
          world.note(`${this.name}: ${message} ${fields === undefined ? '' : JSON.stringify(fields)}`),
        connect: (node) => this.cluster.connect(this, node, live),
        readRegister: () =>
          this.cluster.register.read(this.name, (register) => live(() => this.replica?.learn(register))),
        compareAndSet: (token, version, next) =>
          this.cluster.register.compareAndSet(this.name, version, next, (outcome) =>
            live(() => this.replica?.casSettled(token, outcome)),
          ),
        serve: (volume) => {
          if (this.life === life) this.volume = volume;
        },
      },
    });
    const tick = (): void => {
      this.replica?.tick();
      void this.volume?.zeroSome();
      this.timed(TICK_MS, tick);
    };
    this.timed(world.random.next() * TICK_MS, tick);
  }

  /** SIGKILL, or the power: what was not synced is there or not. */
  crash(power: boolean): void {
    const { world } = this.cluster;
    if (this.disk === null) return;
    world.note(`${this.name} ${power ? 'loses power' : 'is killed'}`);
    this.life++;
    const { disk } = this;
    disk.dead = true;
    this.image = power
      ? crashImage(this.start!, disk.events, disk.events.length, world.random)
      : { data: disk.files.data, journal: disk.files.journal, meta: disk.files.meta };
    this.disk = null;
    this.replica = null;
    this.store = null;
    this.volume = null;
    this.held = null;
    for (const link of this.links) link.die();
    this.links.clear();
  }

  /** Stops in good order, as far as it gets within half a second. */
  async stop(): Promise<void> {
    const { replica, life, cluster } = this;
    if (replica === null || this.held !== null) return;
    cluster.world.note(`${this.name} is told to stop`);
    const waited = new Promise<void>((resolve) => cluster.world.after(500, resolve));
    await replica.resign(waited);
    // Its last words are on their way before the process ends.
    await new Promise<void>((resolve) => cluster.world.after(5, resolve));
    if (this.life === life) this.crash(false);
  }

  pause(forMs: number): void {
    if (this.held !== null || !this.up) return;
    this.cluster.world.note(`${this.name} stops for ${forMs.toFixed(0)} ms`);
    const held: Array<() => void> = [];
    this.held = held;
    this.cluster.world.after(forMs, () => {
      if (this.held !== held) return;
      this.held = null;
      for (const run of held) run();
    });
  }
}

function at(store: BlockStore): string {
  const { lastPosition: last, committedPosition: committed } = store;
  return `last ${last.epoch}.${last.seq}, committed ${committed.epoch}.${committed.seq}`;
}

/** The register: linearizable, but requests and answers take their time, and some are lost. */
class SimRegister {
  current: GroupRegister;
  /** Share of requests and of answers that are lost. */
  loss = 0;
  /** Nodes that do not reach it. */
  readonly unreachable: Set<string> = new Set();
  private readonly world: World;

  constructor(world: World, first: GroupRegister) {
    this.world = world;
    this.current = first;
  }

  private delayMs(): number {
    return this.world.random.chance(0.1) ? this.world.random.next() * 400 : 1 + this.world.random.next() * 4;
  }

  read(node: string, answer: (register: GroupRegister) => void): void {
    this.world.after(this.delayMs(), () => {
      if (this.unreachable.has(node) || this.world.random.chance(this.loss)) return;
      const now = this.current;
      this.world.after(this.delayMs(), () => answer(now));
    });
  }

  compareAndSet(
    node: string,
    expectedVersion: number,
    next: GroupRegister,
    answer: (outcome: CasOutcome) => void,
  ): void {
    let answered = false;
    const once = (outcome: CasOutcome): void => {
      if (!answered) answer(outcome);
      answered = true;
    };
    this.world.after(CAS_MS, () => once({ outcome: 'unknown' }));
    if (this.unreachable.has(node) || this.world.random.chance(this.loss)) return;
    this.world.after(this.delayMs(), () => {
      const done = this.current.version === expectedVersion;
      if (done) {
        this.current = { ...next, version: expectedVersion + 1 };
        const { version, epoch, primary, inSync } = this.current;
        this.world.note(`register ${version}: epoch ${epoch}, primary ${primary}, in sync ${inSync.join(' ')}`);
      }
      const outcome: CasOutcome = { outcome: done ? 'done' : 'refused', register: this.current };
      const heard = !this.unreachable.has(node) && !this.world.random.chance(this.loss);
      if (heard) this.world.after(this.delayMs(), () => once(outcome));
    });
  }
}

export class Cluster {
  readonly world: World;
  readonly rules: Rules;
  readonly nodes: SimNode[] = [];
  register!: SimRegister;
  times: Times = DEFAULT_TIMES;
  diskMs = 1.5;
  slowNetwork = false;
  /** How late a message of a slow network may be. */
  lateMs = 60;
  /** Blocks that clients use, and how long they think. */
  hotBlocks = BLOCKS;
  thinkMs = 12;
  writeShare = 0.5;
  /** `a>b`: nothing gets from a to b. */
  private readonly cuts: Set<string> = new Set();

  private constructor(world: World, rules: Rules) {
    this.world = world;
    this.rules = rules;
  }

  static async make(world: World, names: string[], rules: Rules = ALL_RULES): Promise<Cluster> {
    const cluster = new Cluster(world, rules);
    const members = names.map((node, i) => ({ node, diskId: (100 + i).toString(16).padStart(2, '0').repeat(16) }));
    for (const { node, diskId } of members) {
      const layout = layoutOf(SIZE.sizeBytes, SIZE.journalBytes);
      const sizes = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
      const disk = new SimulatedDisk(SimulatedDisk.blank(sizes), 1, new Arena(8 * MiB));
      await formatStore(disk, {
        volumeId: VOLUME_ID,
        diskId: new Uint8Array(Buffer.from(diskId, 'hex')),
        name: 'sim',
        ...SIZE,
        createdAtMs: 0,
        sparse: false,
        durable: true,
        replica: {
          state: 'in-sync',
          base: { epoch: 0, seq: 0 },
          groupEpoch: 0,
          registerId: new Uint8Array(16),
          registerVersion: 0,
        },
      });
      cluster.nodes.push(new SimNode(cluster, node, disk.files));
    }
    cluster.register = new SimRegister(world, {
      registerId: '5a'.repeat(16),
      version: 1,
      epoch: 0,
      primary: '',
      inSync: names,
      members,
    });
    return cluster;
  }

  latencyMs(): number {
    const { random } = this.world;
    return 0.05 + random.next() * (this.slowNetwork && random.chance(0.2) ? this.lateMs : 0.6);
  }

  isCut(from: string, to: string): boolean {
    return this.cuts.has(`${from}>${to}`);
  }

  cut(from: string, to: string, bothWays: boolean): void {
    this.world.note(`cut ${from} ${bothWays ? '<' : ''}> ${to}`);
    this.cuts.add(`${from}>${to}`);
    if (bothWays) this.cuts.add(`${to}>${from}`);
  }

  /** A host that its clients reach, and nobody else. */
  isolate(name: string): void {
    this.world.note(`${name} is isolated`);
    this.register.unreachable.add(name);
    for (const other of this.nodes) {
      if (other.name === name) continue;
      this.cuts.add(`${name}>${other.name}`);
      this.cuts.add(`${other.name}>${name}`);
    }
  }

  mend(): void {
    if (this.cuts.size > 0) this.world.note('links are mended');
    this.cuts.clear();
    this.register.unreachable.clear();
  }

  connect(from: SimNode, to: string, live: (run: () => void) => void): void {
    const target = this.nodes.find(({ name }) => name === to)!;
    this.world.after(this.latencyMs() * 2, () => {
      const cut = this.isCut(from.name, to) || this.isCut(to, from.name);
      if (!target.up || !from.up || cut) return live(() => from.replica?.closed(to, null));
      const near = new SimLink(this, from, to);
      const far = new SimLink(this, target, from.name);
      near.other = far;
      far.other = near;
      from.links.add(near);
      target.links.add(far);
      live(() => from.replica?.connected(near));
    });
  }
}

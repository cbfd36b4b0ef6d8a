/** One machine of a simulated cluster: a replica on a simulated disk, killed, stopped for a while and started again. */
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { HostedKv } from '../../src/node/hosted-kv.ts';
import type { KvServed } from '../../src/node/kv-served.ts';
import { VolumeSize } from '../../src/node/volume-size.ts';
import type { BackupVolume } from '../../src/replication/backup-volume.ts';
import type { GroupRegister } from '../../src/replication/group-register.ts';
import type { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { Replica } from '../../src/replication/replica.ts';
import { Arena } from '../../src/storage/arena.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { openStore } from '../../src/storage/open-store.ts';
import { type Image, SimulatedDisk, crashImage } from '../support/simulated-disk.ts';
import type { KvRules } from '../../src/kv/rules.ts';
import type { Cluster } from './cluster.ts';
import type { SimLink } from './sim-link.ts';

const MiB = 1024 * 1024;
export const ARENA_BYTES: number = 8 * MiB;
const TICK_MS = 20;
/** When a world begins, on its wall clocks. */
export const WALL_MS = 1_700_000_000_000;

export class SimNode {
  readonly name: string;
  replica: Replica | null = null;
  store: BlockStore | null = null;
  disk: SimulatedDisk | null = null;
  volume: PrimaryVolume | null = null;
  /** Reads under grants. */
  backup: BackupVolume | null = null;
  /** Of a key-value volume, and what it serves of it: as primary, and under grants. */
  kv: HostedKv | null = null;
  kvServed: KvServed | null = null;
  kvReads: KvServed | null = null;
  /** Of its wall clock, against the others'. */
  skewMs = 0;
  readonly links: Set<SimLink> = new Set();
  /** How many times slower than others its disk is. */
  slowness = 1;
  image: Image;
  /** Blocks in which a bit has rotted. */
  readonly rotten: Set<number> = new Set();
  private readonly cluster: Cluster;
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

  /** Starts it, unless it runs. */
  boot(): void {
    if (this.disk !== null) return;
    this.opened().catch((error: unknown) => this.cluster.fail(`${this.name} cannot start: ${String(error)}`));
  }

  private async opened(): Promise<void> {
    const { cluster } = this;
    const { world, rules } = cluster;
    const life = ++this.life;
    const disk = new SimulatedDisk(this.image, world.random.below(2 ** 31), new Arena(ARENA_BYTES));
    disk.schedule = (run) => {
      world.after((0.05 + world.random.next() * cluster.diskMs) * this.slowness, () => this.receive(run));
    };
    this.start = { data: disk.files.data.slice(), journal: disk.files.journal.slice(), meta: disk.files.meta.slice() };
    disk.recording = true;
    this.disk = disk;
    const defer = (run: () => void): void => world.after(0, run);
    const { store } = await openStore(disk, { sizes: disk.sizes, defer, where: this.name, rules });
    if (this.life !== life) return;
    this.store = store;
    world.note(`${this.name} starts: ${store.replica.state}, epoch ${store.epoch}, ${at(store)}, ${store.health}`);
    const live = (run: () => void): void => {
      if (this.life === life) this.receive(() => this.life === life && run());
    };
    const size = new VolumeSize(store, (message, fields) =>
      world.note(`${this.name}: ${message} ${JSON.stringify(fields)}`),
    );
    let sizeBytes = 0;
    const heard = (register: GroupRegister | null): void => {
      sizeBytes = Math.max(sizeBytes, register?.sizeBytes ?? 0);
    };
    if (cluster.kvRules !== null) this.kv = this.hostKv(store, disk, cluster.kvRules, live);
    const { kv } = this;
    this.replica = new Replica({
      node: this.name,
      store,
      arena: disk.arena,
      rules,
      times: cluster.times,
      ports: {
        now: () => world.nowMs,
        random: () => world.random.next(),
        log: (message, fields) => {
          world.note(`${this.name}: ${message} ${fields === undefined ? '' : JSON.stringify(fields)}`);
          if (this.life !== life) return;
          cluster.said(this.name, message, fields);
          if (!cluster.happens(this, message)) cluster.happened(this, message);
        },
        connect: (node) => cluster.connect(this, node, live),
        readRegister: () =>
          cluster.register.read(this.name, (register) =>
            live(() => {
              heard(register);
              this.replica?.learn(register);
            }),
          ),
        compareAndSet: (token, version, next) =>
          cluster.register.compareAndSet(this.name, version, next, (outcome) =>
            live(() => {
              heard('register' in outcome ? outcome.register : null);
              this.replica?.casSettled(token, outcome);
            }),
          ),
        serve: (volume) => {
          if (this.life !== life) return;
          this.volume = volume;
          kv?.setPrimary(volume);
        },
        serveReads: (volume) => {
          if (this.life !== life) return;
          this.backup = volume;
          kv?.setBackup(volume);
        },
        reached: (point) => {
          if (this.life === life && !cluster.happens(this, point)) cluster.happened(this, point);
        },
      },
    });
    const tick = (): void => {
      size.follow({ volume: 'sim', sizeBytes });
      this.replica?.tick();
      this.kv?.tick();
      void this.volume?.owedZeros.writeSome();
      this.timed(TICK_MS, tick);
      if (this.replica?.role === 'stopped') this.replaced();
    };
    this.timed(world.random.next() * TICK_MS, tick);
  }

  /** As `HostedVolume` does it, with the clocks of this world. */
  private hostKv(store: BlockStore, disk: SimulatedDisk, rules: KvRules, live: (run: () => void) => void): HostedKv {
    const { world } = this.cluster;
    return new HostedKv(
      {
        store,
        arena: disk.arena,
        available: this.cluster.available,
        nowMs: () => world.nowMs,
        wallMs: () => WALL_MS + world.nowMs + this.skewMs,
        soon: (run) => world.after(0, () => live(run)),
        follows: () => this.replica?.role === 'following',
        serve: (served, primary) => (primary ? (this.kvServed = served) : (this.kvReads = served)),
        unserve: (_served, primary) => (primary ? (this.kvServed = null) : (this.kvReads = null)),
        log: (_level, message, fields) => world.note(`${this.name}: ${message} ${JSON.stringify(fields)}`),
      },
      rules,
    );
  }

  /** The replica has stopped for good: somebody starts it anew, and what a failed sync left behind may be lost. */
  private replaced(): void {
    const { world } = this.cluster;
    if (this.disk!.faultsFired === 0 && !this.stopping) this.cluster.fail(`${this.name} has stopped for good`);
    if (this.stopping) return;
    this.crash(world.random.chance(0.5));
    world.after(50 + world.random.next() * 500, () => this.boot());
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
    this.backup = null;
    this.kv = this.kvServed = this.kvReads = null;
    this.held = null;
    this.stopping = false;
    const arrives = world.random.chance(0.5);
    for (const link of this.links) link.die(arrives);
    this.links.clear();
  }

  private stopping = false;

  /** Stops in good order, as far as it gets within half a second. */
  async stop(): Promise<void> {
    const { replica, life, cluster } = this;
    if (replica === null || this.held !== null) return;
    cluster.world.note(`${this.name} is told to stop`);
    this.stopping = true;
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

  /** A byte of a block changes on the disk of a machine that is off. */
  rot(block: number): void {
    if (this.disk !== null) return;
    this.cluster.world.note(`${this.name}: block ${block} rots`);
    this.rotten.add(block);
    this.image.data[block * BLOCK_BYTES + 1234]! ^= 0x10;
  }
}

export function at(store: BlockStore): string {
  const { lastPosition: last, committedPosition: committed } = store;
  return `last ${last.epoch}.${last.seq}, committed ${committed.epoch}.${committed.seq}`;
}

/**
 * A whole cluster in one process, under a seed: replicas on simulated disks, streams that delay and break, a register
 * whose answers come late or never, machines that crash, stop for a while and come back.
 */
import type { HoldfastError } from '../../src/base/errors.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import type { KvRules } from '../../src/kv/rules.ts';
import { ALL_RULES, DEFAULT_TIMES, type Rules, type Times } from '../../src/replication/rules.ts';
import { Arena } from '../../src/storage/arena.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { formatStore } from '../../src/storage/open-store.ts';
import { SimulatedDisk } from '../support/simulated-disk.ts';
import { SimLink } from './sim-link.ts';
import { ARENA_BYTES, SimNode } from './sim-node.ts';
import { SimRegister } from './sim-register.ts';
import type { World } from './world.ts';

const JOURNAL_BYTES = 4 * 1024 * 1024;
const VOLUME_ID = Uint8Array.from({ length: 16 }, (_, i) => i + 1);

/** What is to happen to a node at a named moment. */
export interface Trap {
  /** What the replica logs, or `sends X`, `takes X` of a message. */
  event: string;
  /** Right before it or right behind it. */
  before: boolean;
  /** So many such moments are let pass. */
  skip: number;
  /** Only on that node. */
  node?: string;
  spring: (node: SimNode) => void;
}

export class Cluster {
  readonly world: World;
  readonly rules: Rules;
  /** Of a key-value volume; null: it is a disk. */
  readonly kvRules: KvRules | null;
  /** Nodes run with `--when-isolated available`. */
  available = false;
  readonly nodes: SimNode[] = [];
  /** What the volume has, by the register. */
  blocks: number;
  register!: SimRegister;
  times: Times = DEFAULT_TIMES;
  diskMs = 1.5;
  slowNetwork = false;
  /** How late a message of a slow network may be. */
  lateMs = 60;
  /** `a>b`: so late is everything from a to b. */
  readonly lateLinks: Map<string, number> = new Map();
  traps: Trap[] = [];
  /** The first thing that went wrong. */
  wrong: string | null = null;
  /** Reintegrations that copied everything. */
  fullCopies = 0;
  /** `a>b`: nothing gets from a to b. */
  private readonly cuts: Set<string> = new Set();

  private constructor(world: World, blocks: number, rules: Rules, kvRules: KvRules | null) {
    this.kvRules = kvRules;
    this.world = world;
    this.blocks = blocks;
    this.rules = rules;
  }

  static async make(
    world: World,
    names: string[],
    blocks: number,
    rules: Rules = ALL_RULES,
    kvRules: KvRules | null = null,
  ): Promise<Cluster> {
    const cluster = new Cluster(world, blocks, rules, kvRules);
    const members = names.map((node, i) => ({ node, diskId: (100 + i).toString(16).padStart(2, '0').repeat(16) }));
    const size = { sizeBytes: blocks * BLOCK_BYTES, journalBytes: JOURNAL_BYTES };
    for (const { node, diskId } of members) {
      const layout = layoutOf(size.sizeBytes, size.journalBytes);
      const sizes = { data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes };
      const disk = new SimulatedDisk(SimulatedDisk.blank(sizes), 1, new Arena(ARENA_BYTES));
      await formatStore(disk, {
        volumeId: VOLUME_ID,
        diskId: new Uint8Array(Buffer.from(diskId, 'hex')),
        name: 'sim',
        ...size,
        createdAtMs: 0,
        sparse: false,
        durable: true,
        kind: kvRules === null ? 'block' : 'kv',
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

  /** The run is lost; the first reason counts. */
  fail(reason: string): void {
    this.world.note(`WRONG: ${reason}`);
    this.wrong ??= reason;
  }

  /** A client got an error. A block that does not verify was spoiled by somebody, if it has not rotted. */
  met(node: SimNode, { code, message }: HoldfastError): void {
    if (code === 'CORRUPT_BLOCK' && this.nodes.every(({ rotten }) => rotten.size === 0)) {
      this.fail(`${node.name} has spoiled a block: ${message}`);
    }
  }

  /** A node that serves. */
  get primary(): SimNode | undefined {
    return this.nodes.find(({ volume }) => volume !== null);
  }

  node(name: string): SimNode {
    return this.nodes.find((one) => one.name === name)!;
  }

  /** A replica says something. */
  said(_node: string, message: string, fields: object | undefined): void {
    const dirty = (fields as { dirtyBlocks?: number } | undefined)?.dirtyBlocks;
    if (message === 'reintegration begins' && dirty === this.blocks) this.fullCopies++;
  }

  // --- named moments ----------------------------------------------------------------------------------------------------

  /** It is about to happen on that node. @returns whether the node is gone, and it does not happen */
  happens(node: SimNode, event: string): boolean {
    return this.traps.length > 0 && this.sprung(node, event, true) && !node.up;
  }

  /** It has happened on that node. */
  happened(node: SimNode, event: string): void {
    if (this.traps.length > 0) this.sprung(node, event, false);
  }

  private sprung(node: SimNode, event: string, before: boolean): boolean {
    const trap = this.traps.find(
      (one) => one.event === event && one.before === before && (one.node === undefined || one.node === node.name),
    );
    if (trap === undefined || !node.up || trap.skip-- > 0) return false;
    this.traps = this.traps.filter((one) => one !== trap);
    this.world.note(`${node.name}: ${before ? 'before' : 'behind'} "${event}"`);
    trap.spring(node);
    return true;
  }

  // --- network ----------------------------------------------------------------------------------------------------------

  latencyMs(from: string, to: string): number {
    const { random } = this.world;
    const late = this.lateLinks.get(`${from}>${to}`) ?? 0;
    return late + 0.05 + random.next() * (this.slowNetwork && random.chance(0.2) ? this.lateMs : 0.6);
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

  /** No more faults; machines that are down stay down. */
  peace(): void {
    this.traps = [];
    this.mend();
    this.register.loss = 0;
    this.register.lateMs.clear();
    this.lateLinks.clear();
    this.slowNetwork = false;
  }

  mend(): void {
    if (this.cuts.size > 0) this.world.note('links are mended');
    this.cuts.clear();
    this.register.unreachable.clear();
  }

  connect(from: SimNode, to: string, live: (run: () => void) => void): void {
    const target = this.node(to);
    this.world.after(this.latencyMs(from.name, to) + this.latencyMs(to, from.name), () => {
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

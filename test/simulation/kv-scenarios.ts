/** Faults of one kind, again and again, each directed at one rule of the key-value store. */
import type { KvRules } from '../../src/kv/rules.ts';
import type { Slot } from '../../src/storage/arena.ts';
import type { Cluster } from './cluster.ts';
import type { KvHabits } from './kv-client.ts';
import { backupOf, crashFor, every, forgets } from './scenarios.ts';
import { raise } from './growth.ts';
import type { SimNode } from './sim-node.ts';

export type KvScenario =
  'scarce memory' | 'cut backups' | 'full' | 'emptied' | 'forgotten' | 'failovers' | 'many sessions' | 'grown';

interface Directed {
  /** The volume grows on the way. */
  grows?: boolean;
  rules?: Partial<KvRules>;
  prepare: (cluster: Cluster, habits: KvHabits) => void;
  /** Until that time. */
  unleash: (cluster: Cluster, untilMs: number) => void;
}

/** When clients end. */
export const HEAL_MS = 6500;
const LARGE_PAGES = 63;
/** What the disks of a volume that grows have room for. */
export const ROOM_BLOCKS = 9 * 256 + 77;

/** What else runs in a node has all the large slots for a while. */
function hold(cluster: Cluster, node: SimNode, forMs: number): void {
  const { disk } = node;
  if (disk === null) return;
  const held: Slot[] = [];
  for (let slot = disk.arena.take(LARGE_PAGES); slot !== null; slot = disk.arena.take(LARGE_PAGES)) held.push(slot);
  cluster.world.note(`${node.name} has no large slots for ${forMs.toFixed(0)} ms`);
  cluster.world.after(forMs, () => {
    for (const slot of held) disk.arena.release(slot);
  });
}

/** Memory is scarce at the primary now and then. */
export function scarceMemory(cluster: Cluster, untilMs: number): void {
  every(900, (_cluster, primary) => hold(cluster, primary, 50 + cluster.world.random.next() * 400))(cluster, untilMs);
}

export const KV_SCENARIOS: Record<KvScenario, Directed> = {
  /** ... and the primary falls, with what waits for it. */
  'scarce memory': {
    prepare: (cluster, habits) => {
      Object.assign(habits, { thinkMs: 8, largeShare: 0, largeBytes: 110_000 });
      Object.assign(habits, { countShare: 0.7, heavyShare: 0.3, readShare: 0.1, abandonShare: 0 });
      cluster.diskMs = 1.5;
    },
    unleash: every(900, (cluster, primary) => {
      hold(cluster, primary, 300);
      cluster.world.after(200 + cluster.world.random.next() * 120, () => crashFor(cluster, primary, false, 50));
    }),
  },

  /** A backup reaches nobody but its clients, who read there. */
  'cut backups': {
    prepare: (_cluster, habits) => {
      Object.assign(habits, { thinkMs: 8, readShare: 0.6, backupShare: 0.7, scanShare: 0.1, largeShare: 0 });
    },
    unleash: every(2000, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      cluster.isolate(backup.name);
      cluster.world.after(1500, () => cluster.mend());
    }),
  },

  /** More is written than there is room for. */
  full: {
    prepare: (cluster, habits) => {
      Object.assign(habits, { thinkMs: 24, readShare: 0.3, largeShare: 0.8, largeBytes: 190_000, deleteShare: 0.1 });
      cluster.diskMs = 1.5;
    },
    unleash: every(1200, (cluster, primary) => {
      const { random } = cluster.world;
      crashFor(
        cluster,
        random.chance(0.5) ? primary : (backupOf(cluster, primary) ?? primary),
        random.chance(0.5),
        100,
      );
    }),
  },

  /** What is written is soon deleted, nobody has a session, and all lose their power. */
  emptied: {
    prepare: (_cluster, habits) => {
      Object.assign(habits, { deleteShare: 0.6, expiryShare: 1, namelessShare: 1, pairShare: 0, countShare: 0 });
      Object.assign(habits, { accountShare: 0, largeShare: 0.3, compareShare: 0 });
    },
    unleash: (cluster, untilMs) => {
      const all = (): void => cluster.nodes.forEach((node) => crashFor(cluster, node, true, 20));
      every(1200, all)(cluster, untilMs);
      // What is left expires under the next primary, which nobody writes to.
      cluster.world.after(HEAL_MS + 200, all);
    },
  },

  /** A primary loses its power and what only its backup has, and opens the next epoch. */
  forgotten: {
    prepare: (_cluster, habits) => {
      Object.assign(habits, { thinkMs: 6, readShare: 0.4, largeShare: 0.1 });
    },
    unleash: every(2000, (cluster, primary) => forgets(cluster, primary, () => {})),
  },

  /** The volume grows, and a backup that is brought back then does not know it; then the primary falls. */
  grown: {
    grows: true,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { thinkMs: 10, readShare: 0.4, backupShare: 0.6, largeShare: 0.7, largeBytes: 190_000 });
      Object.assign(habits, { deleteShare: 0.1 });
    },
    unleash: every(2000, (cluster, primary) => {
      const { world, register } = cluster;
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      register.unreachable.add(backup.name);
      raise(cluster, Math.min(ROOM_BLOCKS, cluster.blocks + 500));
      world.after(250, () => crashFor(cluster, backup, world.random.chance(0.5), 30));
      world.after(1600, () => {
        register.unreachable.clear();
        if (world.random.chance(0.5)) crashFor(cluster, primary, world.random.chance(0.5), 300);
      });
    }),
  },

  /** The primary falls with answers under way. */
  failovers: {
    prepare: (_cluster, habits) => {
      Object.assign(habits, { thinkMs: 6, lossShare: 0.1, abandonShare: 0, largeShare: 0.1 });
    },
    unleash: every(1500, (cluster, primary) => crashFor(cluster, primary, cluster.world.random.chance(0.5), 400)),
  },

  /** More than are remembered, and what they were answered is erased soon; then all lose their power. */
  'many sessions': {
    rules: { sessions: 2 },
    prepare: (cluster, habits) => {
      Object.assign(habits, { thinkMs: 10, lossShare: 0.15, abandonShare: 0, readShare: 0.1 });
      Object.assign(habits, { largeShare: 0.6, largeBytes: 190_000, deleteShare: 0.2, countShare: 0.5 });
      cluster.diskMs = 1.5;
    },
    unleash: every(700, (cluster, primary) => {
      if (cluster.world.random.chance(0.3)) crashFor(cluster, primary, true, 50);
      else for (const node of cluster.nodes) crashFor(cluster, node, true, 20);
    }),
  },
};

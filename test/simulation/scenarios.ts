/**
 * Faults of one kind, again and again, each directed at one rule of the core: what it guards against happens often enough
 * there that few seeds find it missing (mutations.test.ts).
 */
import { DEFAULT_TIMES } from '../../src/replication/rules.ts';
import type { Habits } from './client.ts';
import type { Cluster } from './cluster.ts';
import type { SimNode } from './sim-node.ts';

export type Scenario =
  | 'isolation'
  | 'restarts'
  | 'late echoes'
  | 'late promotion'
  | 'target falls'
  | 'slow source'
  | 'slow third'
  | 'given up'
  | 'two absent'
  | 'half a group'
  | 'back without'
  | 'old streams'
  | 'old answers';

interface Directed {
  clients: number;
  /** The other clients only read; default: none. */
  writers?: number;
  large?: boolean;
  prepare: (cluster: Cluster, habits: Habits) => void;
  /** Until that time. */
  unleash: (cluster: Cluster, untilMs: number) => void;
}

/** Many readers and few writers, here and there, see the most of a machine that does not know better. */
const readers = (_cluster: Cluster, habits: Habits): void => {
  Object.assign(habits, { hotBlocks: 12, thinkMs: 8, writeShare: 0.9, markShare: 0, backupShare: 0 });
  Object.assign(habits, { roamShare: 0.3, patienceMs: 60, patientShare: 0, abandonShare: 0 });
};

/** `strike` once, when the cluster has begun, and then every so often. */
export function every(
  periodMs: number,
  strike: (cluster: Cluster, primary: SimNode) => void,
): (cluster: Cluster, untilMs: number) => void {
  return (cluster, untilMs) => {
    const { world } = cluster;
    const again = (): void => {
      if (world.nowMs > untilMs) return;
      const { primary } = cluster;
      if (primary !== undefined) strike(cluster, primary);
      world.after(periodMs * (0.8 + world.random.next() * 0.4), again);
    };
    world.after(1800, again);
  };
}

/** One that is up and not the primary. */
export function backupOf(cluster: Cluster, primary: SimNode): SimNode | undefined {
  const backups = cluster.nodes.filter((node) => node !== primary && node.up);
  return backups[cluster.world.random.below(Math.max(1, backups.length))];
}

export function crashFor(cluster: Cluster, node: SimNode, power: boolean, forMs: number): void {
  node.crash(power);
  cluster.world.after(forMs, () => node.boot());
}

/** The primary loses its power, and with it what only a backup has made durable; the backup cannot take its place. */
export function forgets(cluster: Cluster, primary: SimNode, back: () => void): void {
  const { world, register } = cluster;
  const backup = backupOf(cluster, primary);
  if (backup === undefined) return;
  primary.slowness = 30;
  register.unreachable.add(backup.name);
  const spring = (): void => {
    // What was sent is durable there by then.
    world.after(10, () => {
      primary.slowness = 1;
      crashFor(cluster, primary, true, 10);
      back();
    });
  };
  cluster.traps = [{ event: 'takes RECORD', node: backup.name, before: false, skip: 3, spring }];
  world.after(1800, () => register.unreachable.clear());
}

export const SCENARIOS: Record<Scenario, Directed> = {
  isolation: {
    clients: 10,
    writers: 3,
    prepare: readers,
    unleash: every(3000, (cluster, primary) => {
      cluster.isolate(primary.name);
      cluster.world.after(1800, () => cluster.mend());
    }),
  },

  /** A backup that is killed and at once there again, while its primary reaches nobody but its clients. */
  restarts: {
    clients: 10,
    writers: 3,
    prepare: readers,
    unleash: every(3000, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      cluster.isolate(primary.name);
      crashFor(cluster, backup, false, 10);
      cluster.world.after(600, () => cluster.mend());
    }),
  },

  /** Echoes travel long, and the primary is heard no more right behind one. */
  'late echoes': {
    clients: 10,
    writers: 3,
    prepare: (cluster, habits) => {
      readers(cluster, habits);
      cluster.times = { ...DEFAULT_TIMES, suspicionMs: DEFAULT_TIMES.promiseMs + 10 };
    },
    unleash: every(2500, (cluster, primary) => {
      for (const { name } of cluster.nodes) {
        if (name !== primary.name) cluster.lateLinks.set(`${name}>${primary.name}`, 350);
      }
      cluster.world.after(450, () => {
        cluster.register.unreachable.add(primary.name);
        for (const { name } of cluster.nodes) if (name !== primary.name) cluster.cut(primary.name, name, false);
      });
      cluster.world.after(1400, () => {
        cluster.mend();
        cluster.lateLinks.clear();
      });
    }),
  },

  /** A compare-and-set is long on its way while the old primary finds its backup again. */
  'late promotion': {
    clients: 10,
    writers: 3,
    prepare: (cluster, habits) => {
      readers(cluster, habits);
      cluster.times = { ...DEFAULT_TIMES, suspicionMs: DEFAULT_TIMES.promiseMs + 10, gatherMs: 5000 };
    },
    unleash: (cluster, untilMs) => {
      const { world } = cluster;
      const again = (): void => {
        const { primary } = cluster;
        if (world.nowMs > untilMs) return;
        const [one, two] = cluster.nodes;
        if (primary === undefined) return world.after(50, again);
        // Both start; one is elected while nothing gets to the other, which is tired of waiting when it does.
        cluster.cut(one!.name, two!.name, true);
        one!.crash(false);
        two!.crash(false);
        one!.boot();
        world.after(250, () => two!.boot());
        cluster.traps = [
          {
            event: 'seeking promotion',
            before: false,
            skip: 1,
            spring: (node) => {
              cluster.register.lateMs.set(node.name, 260);
              cluster.mend();
              // The attempt has taken effect by then.
              world.after(255, () => {
                for (const other of cluster.nodes) if (other !== node) cluster.isolate(other.name);
                world.after(900, () => cluster.mend());
              });
              world.after(900, () => cluster.register.lateMs.clear());
            },
          },
        ];
        world.after(5000, () => cluster.mend());
        world.after(3500, again);
      };
      world.after(1800, again);
    },
  },

  /** A target loses its power in the midst of the copies. */
  'target falls': {
    clients: 3,
    large: true,
    prepare: (cluster, habits) => {
      Object.assign(habits, { hotBlocks: 4, anywhereShare: 0.5, maxBlocks: 64, thinkMs: 8, markShare: 0 });
      cluster.diskMs = 8;
    },
    unleash: every(1500, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      crashFor(cluster, backup, true, 300);
      cluster.traps = [
        {
          event: 'takes COPY',
          node: backup.name,
          before: false,
          skip: cluster.world.random.below(3),
          spring: (node) => crashFor(cluster, node, true, 100),
        },
      ];
    }),
  },

  /** The disk of the source is slow to read from, its target is fast, and soon takes its place. */
  'slow source': {
    clients: 8,
    prepare: (cluster, habits) => {
      Object.assign(habits, { hotBlocks: 24, writeShare: 0.5, thinkMs: 10, markShare: 0, backupShare: 0 });
      cluster.diskMs = 1.5;
    },
    unleash: every(2500, (cluster, primary) => {
      for (const node of cluster.nodes) node.slowness = node === primary ? 30 : 1;
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      crashFor(cluster, backup, true, 250);
      const spring = (node: SimNode): void => {
        cluster.world.after(5, () => {
          if (node === primary) crashFor(cluster, node, false, 1200);
        });
      };
      cluster.traps = [{ event: 'a replica is in sync again', node: primary.name, before: false, skip: 0, spring }];
    }),
  },

  /** A third member acknowledges late, so that much is not committed when the barrier is raised. */
  'slow third': {
    clients: 8,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { hotBlocks: 2, writeShare: 0.8, thinkMs: 4, markShare: 0 });
    },
    unleash: every(1500, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      crashFor(cluster, backup, false, 300);
      cluster.traps = [
        {
          event: 'reintegration begins',
          before: true,
          skip: 0,
          spring: (node) => {
            for (const third of cluster.nodes) if (third !== node && third !== backup) third.pause(400);
          },
        },
      ];
    }),
  },

  /** Clients that never repeat what was not answered: what one disk has of it, nobody writes over. */
  'given up': {
    clients: 6,
    large: true,
    prepare: (_cluster, habits) => {
      Object.assign(habits, {
        abandonShare: 1,
        anywhereShare: 1,
        thinkMs: 60,
        writeShare: 0.5,
        longShare: 0,
        markShare: 0,
      });
    },
    unleash: every(2500, (cluster, primary) => {
      // What it appends from now on nobody else gets, and it is killed.
      for (const { name } of cluster.nodes) if (name !== primary.name) cluster.cut(primary.name, name, false);
      cluster.world.after(300, () => {
        crashFor(cluster, primary, false, 1500);
        cluster.mend();
      });
    }),
  },

  /** One member is away, a second one is brought back, then its source is gone: it needs the source's bitmap. */
  'two absent': {
    clients: 3,
    large: true,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { hotBlocks: 40, anywhereShare: 0, markShare: 0, abandonShare: 0 });
    },
    unleash: (cluster) => {
      const { world } = cluster;
      world.after(1800, () => {
        const { primary } = cluster;
        if (primary === undefined) return;
        const [second, third] = cluster.nodes.filter((node) => node !== primary);
        crashFor(cluster, third!, false, 5500);
        world.after(300, () => crashFor(cluster, second!, false, 400));
        world.after(2500, () => crashFor(cluster, primary, false, 6000));
      });
    },
  },

  /** A primary comes back first from a loss of power, and falls again when it has sent a part of its opening group. */
  'half a group': {
    clients: 8,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { hotBlocks: 24, writeShare: 0.7, thinkMs: 10, markShare: 0, abandonShare: 0 });
    },
    unleash: every(4000, (cluster, primary) => {
      const { world } = cluster;
      forgets(cluster, primary, () => {
        const spring = (node: SimNode): void => {
          crashFor(cluster, node, false, 2000);
          cluster.register.unreachable.clear();
          // Either it goes on as it is, or by what its journal says.
          const backup = backupOf(cluster, node);
          if (backup === undefined || world.random.chance(0.5)) return;
          world.after(20, () => crashFor(cluster, backup, world.random.chance(0.5), 10));
        };
        cluster.traps = [{ event: 'promote:group', node: primary.name, before: false, skip: 0, spring }];
      });
    }),
  },

  /** A primary comes back first from a loss of power, and its backup has shown to clients only what is committed. */
  'back without': {
    clients: 8,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { hotBlocks: 24, writeShare: 0.5, thinkMs: 10, markShare: 0 });
      Object.assign(habits, { backupShare: 0.8, abandonShare: 1 });
    },
    unleash: every(3000, (cluster, primary) => forgets(cluster, primary, () => {})),
  },

  /** A source falls in the midst of the copies; they arrive when the third member has brought the target into sync. */
  'old streams': {
    clients: 8,
    large: true,
    prepare: (_cluster, habits) => {
      Object.assign(habits, { hotBlocks: 80, writeShare: 0.5, thinkMs: 10, markShare: 0, backupShare: 0.5 });
    },
    unleash: every(2500, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      const path = `${primary.name}>${backup.name}`;
      crashFor(cluster, backup, false, 250);
      const spring = (node: SimNode): void => {
        cluster.lateLinks.set(path, 1000);
        cluster.world.after(10, () => {
          cluster.lateLinks.delete(path);
          crashFor(cluster, node, false, 1500);
        });
      };
      cluster.traps = [{ event: 'reintegration begins', node: primary.name, before: true, skip: 0, spring }];
    }),
  },

  /** What a target has acknowledged arrives when its source has given the stream up and copies anew; then it falls. */
  'old answers': {
    clients: 6,
    large: true,
    prepare: (cluster, habits) => {
      Object.assign(habits, {
        hotBlocks: 80,
        anywhereShare: 1,
        abandonShare: 1,
        thinkMs: 10,
        longShare: 0,
        markShare: 0,
      });
      cluster.diskMs = 8;
    },
    unleash: every(3000, (cluster, primary) => {
      const backup = backupOf(cluster, primary);
      if (backup === undefined) return;
      const { world } = cluster;
      const path = `${backup.name}>${primary.name}`;
      crashFor(cluster, backup, false, 250);
      const trap = (event: string, skip: number, spring: () => void): void => {
        cluster.traps = [{ event, node: primary.name, before: false, skip, spring }];
      };
      trap('reintegration begins', 0, () => {
        cluster.lateLinks.set(path, 1080 + world.random.next() * 60);
        world.after(900, () => cluster.lateLinks.delete(path));
        trap('reintegration begins', 0, () => trap('takes COPY_ACK', 3, () => crashFor(cluster, backup, true, 100)));
      });
    }),
  },
};

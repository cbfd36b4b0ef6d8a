/** What happens to a cluster under a seed: faults of every kind, mixed, until it is left in peace. */
import { CRASH_POINTS } from '../../src/replication/crash-points.ts';
import type { Cluster } from './cluster.ts';
import type { SimNode } from './sim-node.ts';

/** Moments at which something may happen to a node: what it logs, the messages that it sends and takes, its crash points. */
const MOMENTS = [
  ...Object.keys(CRASH_POINTS),
  'seeking promotion',
  'the epoch is open',
  'the tenure is over',
  'a replica is lost',
  'reintegration begins',
  'a replica is in sync again',
  ...[
    'JOIN',
    'STATUS',
    'BARRIER',
    'HANDOVER',
    'COPY',
    'COPY_ACK',
    'FINISH',
    'FINISHED',
    'RESIGNED',
    'RECORD',
    'ACK',
  ].flatMap((type) => [`sends ${type}`, `takes ${type}`]),
];

export interface Mix {
  untilMs: number;
  /** A write or sync of a disk fails now and then. */
  diskFaults: boolean;
  /** Once, a byte changes on a disk that is off. */
  rot: boolean;
}

export function unleashFaults(cluster: Cluster, mix: Mix): void {
  const { world } = cluster;
  const { random } = world;
  const some = (): SimNode => cluster.nodes[random.below(cluster.nodes.length)]!;
  const backMs = (): number => (random.chance(0.5) ? 30 + random.next() * 200 : random.next() * 2500);
  let rot = mix.rot;
  const fell = (node: SimNode): void => {
    if (rot && node.disk === null) {
      rot = false;
      node.rot(random.below(cluster.blocks));
    }
    world.after(backMs(), () => node.boot());
  };
  const crash = (node: SimNode): void => {
    if (node.disk === null) return;
    node.crash(random.chance(0.5));
    fell(node);
  };
  const strike = (): void => {
    if (world.nowMs > mix.untilMs) return;
    const roll = random.below(14);
    if (roll < 4) {
      const node = random.chance(0.5) ? (cluster.primary ?? some()) : some();
      if (node.disk !== null && random.chance(0.25)) void node.stop().then(() => fell(node));
      else crash(node);
    } else if (roll < 8) {
      const event = MOMENTS[random.below(MOMENTS.length)]!;
      const skip = /RECORD|ACK|write:|follow:/.test(event)
        ? random.below(60)
        : /COPY|copy|copied/.test(event)
          ? random.below(4)
          : 0;
      const pausing = random.chance(0.15);
      cluster.traps.push({
        event,
        before: random.chance(0.5),
        skip,
        spring: (node) => (pausing ? node.pause(50 + random.next() * 1500) : crash(node)),
      });
    } else if (roll < 9) some().pause(50 + random.next() * 2000);
    else if (roll < 10) {
      cluster.isolate((cluster.primary ?? some()).name);
      world.after(200 + random.next() * 3000, () => cluster.mend());
    } else if (roll < 12) {
      const [a, b] = [some(), some()];
      if (a !== b) {
        cluster.cut(a.name, b.name, random.chance(0.5));
        world.after(50 + random.next() * 2000, () => cluster.mend());
      }
    } else if (roll < 13 || !mix.diskFaults) {
      cluster.register.loss = 0.5;
      world.after(random.next() * 1500, () => (cluster.register.loss = 0));
    } else {
      const { disk, name, up } = some();
      const kind = random.chance(0.5) ? 'write' : 'sync';
      if (up) {
        world.note(`${name}: a ${kind} is going to fail`);
        disk!.fault = { kind, n: 1 + random.below(20), code: 'IO_ERROR' };
      }
    }
    world.after(100 + random.next() * 900, strike);
  };
  world.after(300 + random.next() * 1200, strike);
}

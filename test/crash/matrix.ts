/**
 * Two nodes with faults enabled, a volume, and clients that know what must be in it; rows of the matrix are played on
 * it, one after the other. Nodes are real processes, their ends real SIGKILLs.
 *
 * A row is right if the process ended at the armed step (else it proved nothing), no client got an error, every answered
 * write is there, each unanswered one is old or new as a whole, and both replicas are in sync again.
 */
import * as assert from 'uvu/assert';
import { join } from 'node:path';
import { type ClusterView, lookAt } from '../../src/cli/cluster-status.ts';
import { admin } from '../../src/client/admin.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { Coordinator } from '../../src/coordination/register.ts';
import type { CrashPoint } from '../../src/replication/crash-points.ts';
import { TestCluster } from '../support/cluster.ts';
import { CoordinatorProcess, type EtcdCluster } from '../support/coordinators.ts';
import { stopProcess } from '../support/stop-process.ts';
import { Load, Scattered, Shots, pause } from './load.ts';

export const VOLUME = 'v';
export const NODES = ['a', 'b'];
export const other = (name: string): string => (name === 'a' ? 'b' : 'a');
const LOOK_MS = 25;
export class Matrix {
  readonly cluster: TestCluster;
  readonly volume: Volume;
  readonly load: Load;
  readonly shots: Shots;
  readonly scattered: Scattered = new Scattered();
  /** How often an armed step, or a signal, has ended a process. */
  fired = 0;
  /** For whatever is waited for within a row. */
  patienceMs = 45_000;
  private readonly etcd: EtcdCluster | null;
  private readonly coordinator: Coordinator;

  private constructor(cluster: TestCluster, etcd: EtcdCluster | null, coordinator: Coordinator, volume: Volume) {
    this.cluster = cluster;
    this.etcd = etcd;
    this.coordinator = coordinator;
    this.volume = volume;
    this.load = new Load(volume);
    this.shots = new Shots(cluster.url(VOLUME));
  }

  static async start(kind: 'embedded' | 'etcd' = 'embedded', size = '16MiB'): Promise<Matrix> {
    const cluster = await TestCluster.start(NODES, { coordinator: kind, args: ['--enable-faults'] });
    const etcd = kind === 'etcd' ? cluster.etcd : null;
    await cluster.create(VOLUME, size, NODES.length);
    await cluster.untilSafe();
    const coordinator = openCoordinator(cluster.coordinatorUrl, { deadlineMs: 1000 });
    const volume = await connect(cluster.url(VOLUME), { retryMs: Infinity });
    return new Matrix(cluster, etcd, coordinator, volume);
  }

  // --- what the plays use ---------------------------------------------------------------------------------------------

  /** Looks until it is so. The coordinator may be away for a while. */
  async until(satisfied: (view: ClusterView) => boolean, what: string): Promise<ClusterView> {
    const endMs = performance.now() + this.patienceMs;
    for (let last: unknown = null; ; await pause(LOOK_MS)) {
      try {
        const view = await lookAt(this.coordinator);
        if (satisfied(view)) return view;
        last = view.volumes;
      } catch (error) {
        last = error;
      }
      if (performance.now() > endMs) throw new Error(`waited in vain for ${what}: ${JSON.stringify(last)}`);
    }
  }

  look(): Promise<ClusterView> {
    return this.until(() => true, 'a look');
  }

  async untilSafe(): Promise<void> {
    await this.until(({ verdict, volumes }) => verdict === 'safe' && volumes.length === 1, 'all to be in sync');
  }

  /** Who serves it; waits until somebody does. */
  async primary(): Promise<string> {
    const { volumes } = await this.until(
      (view) => view.volumes.some(({ verdict }) => verdict !== 'unavailable'),
      'the volume to be served',
    );
    return volumes[0]!.primary;
  }

  async untilPrimary(name: string): Promise<void> {
    const served = ({ volumes: [one] }: ClusterView): boolean =>
      one!.primary === name && one!.verdict !== 'unavailable';
    await this.until(served, `${name} to be primary`);
  }

  async arm(name: string, point: CrashPoint, count = 1): Promise<void> {
    await this.fault(name, { kind: 'crash', point, count, volume: VOLUME });
  }

  async fault(name: string, request: { kind: string; [field: string]: unknown }): Promise<void> {
    await admin(this.cluster.slot(name).address, { op: 'fault', ...request });
  }

  /** The armed step must end the process: a row whose step is not reached proves nothing. */
  async crashed(name: string, what: string): Promise<void> {
    let late: NodeJS.Timeout | undefined;
    const never = new Promise<never>((_resolve, reject) => {
      late = setTimeout(() => reject(new Error(`${what} did not end ${name}`)), this.patienceMs);
    });
    const how = await Promise.race([this.cluster.ended(name), never]).finally(() => clearTimeout(late));
    assert.is(how.signal, 'SIGKILL', `${what} ended ${name} in another way: ${how.code}`);
    this.fired++;
  }

  async kill(name: string): Promise<void> {
    await this.cluster.kill(name);
  }

  /** Starts it so that it ends itself at a step, and waits until it has. */
  async startToCrash(name: string, point: CrashPoint): Promise<void> {
    const slot = this.cluster.slot(name);
    slot.env = { HOLDFAST_CRASH_AT: point };
    try {
      await this.cluster.restart(name);
    } catch (error) {
      // It got that far before it had said where it listens.
      assert.match((error as Error).message, /ended \(SIGKILL\)/);
      this.fired++;
      return;
    } finally {
      slot.env = {};
    }
    await this.crashed(name, point);
  }

  async loseCoordinator(): Promise<void> {
    if (this.etcd === null) await this.cluster.coordinator.kill();
    else for (const { child } of this.etcd.members) await stopProcess(child);
  }

  async findCoordinator(): Promise<void> {
    const { cluster, etcd } = this;
    if (etcd !== null) for (const { child } of etcd.members) child.kill('SIGCONT');
    else {
      const { address } = cluster.coordinator;
      cluster.coordinator = await CoordinatorProcess.start(join(cluster.dir, 'coordinator'), address);
    }
  }

  // --- the end --------------------------------------------------------------------------------------------------------

  /** Nobody but one has opened an epoch. */
  private checkEpochs(): void {
    const openers = new Map<number, Set<string>>();
    for (const line of this.cluster.log().split('\n')) {
      if (!line.includes('"the epoch is open"')) continue;
      const { epoch, node, pid } = JSON.parse(line) as { epoch: number; node: string; pid: number };
      openers.set(epoch, (openers.get(epoch) ?? new Set()).add(`${node} (${pid})`));
    }
    assert.ok(openers.size > 0, 'the nodes say which epochs they open');
    for (const [epoch, by] of openers) assert.is(by.size, 1, `epoch ${epoch} was opened by ${[...by].join(' and ')}`);
  }

  /** All is read once more, the nodes stop in good order, and their replicas are compared byte for byte. */
  async finish(): Promise<void> {
    await this.untilSafe();
    await this.load.end();
    await this.scattered.check(this.volume);
    await this.shots.settle(this.volume);
    await this.volume.close();
    assert.equal(Object.values(await this.cluster.stopNodes()), [0, 0], 'exit codes');
    this.checkEpochs();
    await this.cluster.compare(VOLUME, NODES);
  }

  /** What is left is ended, whatever state it is in. */
  async stop(): Promise<void> {
    await this.coordinator.close();
    await this.volume.close().catch(() => {});
    await this.cluster.stop();
  }
}

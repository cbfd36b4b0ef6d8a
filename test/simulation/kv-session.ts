/** A session with a simulated key-value volume: whoever serves it is looked for, and asked until an answer comes. */
import { HoldfastError } from '../../src/base/errors.ts';
import type { Position } from '../../src/base/position.ts';
import type { KvVolume } from '../../src/kv/operations.ts';
import type { KvServed } from '../../src/node/kv-served.ts';
import type { Attachment } from '../../src/replication/served-volume.ts';
import type { Cluster } from './cluster.ts';
import type { SimNode } from './sim-node.ts';
import type { World } from './world.ts';

/** Some wait so long for an answer, and get the answers of machines that slept. */
const LONG_PATIENCE_MS = 4000;

export interface Patience {
  /** Who hears nothing for so long tries again elsewhere; a share waits longer. */
  patienceMs: number;
  patientShare: number;
  /** An answer gets lost. */
  lossShare: number;
  /** What was not answered in time is not repeated. */
  abandonShare: number;
}

/** @param all every answer before was received, and that is told */
export type Since = (all: boolean) => number;

export class KvSession {
  readonly name: string;
  protected readonly cluster: Cluster;
  protected session: bigint;
  /** A change is unanswered. */
  protected mutates = false;
  /** It attached with nothing unanswered: nothing is repeated over that connection. */
  private began = false;
  private readonly patience: Patience;
  private generation = 0;
  private since: Position | null = null;
  private served: KvServed | null = null;
  private node: SimNode | null = null;
  private attachment: Attachment | null = null;

  constructor(cluster: Cluster, patience: Patience, session: bigint, name: string) {
    this.cluster = cluster;
    this.patience = patience;
    this.session = session;
    this.name = name;
  }

  protected get world(): World {
    return this.cluster.world;
  }

  protected one<T>(list: readonly T[]): T {
    return list[this.world.random.below(list.length)]!;
  }

  /** @param given it is given up instead of repeated */
  protected attempt<T>(
    call: (kv: KvVolume, since: Since, done: (error: HoldfastError | null, value: T | null) => void) => void,
    over: (error: HoldfastError | null, value: T | null) => void,
    given: (() => void) | null = null,
  ): void {
    const { world, patience: habits } = this;
    let settled = false;
    const again = (): void => {
      if (settled) return;
      settled = true;
      this.leave();
      if (given !== null && world.random.chance(habits.abandonShare)) return given();
      world.after(20 + world.random.next() * 60, () => this.attempt(call, over, given));
    };
    world.after(world.random.chance(habits.patientShare) ? LONG_PATIENCE_MS : habits.patienceMs, again);
    this.attached((error) => {
      if (settled) return;
      if (error?.code === 'OUTCOME_UNKNOWN') {
        settled = true;
        return over(error, null);
      }
      if (error !== null) return again();
      const { served, attachment } = this;
      const node = this.node!;
      const { kv } = node;
      node.receive(() => {
        // A request that was sent is executed, also if nobody waits for it any more; unless its connection is gone.
        if (node.kv !== kv || node.kvServed !== served || revoked(attachment!)) return;
        // What vouches for its answers: with `available`, `served.kv` may answer with what is stale.
        const volume = kv?.current ?? null;
        if (volume === null) return again();
        call(
          volume,
          (all) => (this.began && all ? Number.POSITIVE_INFINITY : this.since!.seq),
          (failure, value) => {
            // The answer of a process that died does not arrive.
            if (settled || node.kv !== kv) return;
            if (failure !== null) this.cluster.met(node, failure);
            if (failure !== null && (failure.retryable || failure.code === 'STALE_GENERATION')) return again();
            if (world.random.chance(habits.lossShare)) return again();
            settled = true;
            over(failure, value);
          },
        );
      });
    });
  }

  protected leave(): void {
    if (this.attachment !== null && this.node!.kvServed === this.served) this.served!.detach(this.attachment);
    this.served = null;
    this.attachment = null;
  }

  private attached(then: (error: HoldfastError | null) => void): void {
    if (this.served !== null && this.node!.kvServed === this.served) return then(null);
    const serving = this.cluster.nodes.filter((node) => node.kvServed !== null);
    if (serving.length === 0) return then(new HoldfastError('UNREACHABLE'));
    // As the client library does: what was answered needs nobody's memory.
    if (!this.mutates) this.since = null;
    const node = this.one(serving);
    const served = node.kvServed!;
    const generation = ++this.generation;
    const { session } = this;
    const stale = (): boolean => session !== this.session || generation !== this.generation;
    node.receive(() => {
      if (node.kvServed !== served || stale()) return then(new HoldfastError('UNREACHABLE'));
      const nothing = (): void => {};
      served.attach(session, generation, this.since, nothing, (error, attachment) => {
        if (stale()) return then(new HoldfastError('UNREACHABLE'));
        if (error !== null) return then(error);
        this.began = this.since === null;
        this.since ??= served.info().position;
        this.node = node;
        this.served = served;
        this.attachment = attachment;
        then(null);
      });
    });
  }

  protected newSession(): void {
    this.session += 1000n;
    this.generation = 0;
    this.since = null;
    this.leave();
  }
}

const revoked = (attachment: Attachment): boolean => (attachment as { revoked?: boolean }).revoked === true;

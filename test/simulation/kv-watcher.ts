/**
 * Watches a prefix of a simulated key-value volume, from one version to the next, whoever is primary; when changes are
 * not kept any more it begins anew.
 */
import type { HoldfastError } from '../../src/base/errors.ts';
import type { Key, WatchPage } from '../../src/kv/operations.ts';
import type { Cluster } from './cluster.ts';
import { type KvHistories, type Watched, decodeValue } from './kv-histories.ts';
import { KvSession, type Patience } from './kv-session.ts';

export class KvWatcher extends KvSession {
  private readonly histories: KvHistories;
  private readonly watched: Watched;
  private after = 0;
  stopAtMs = Infinity;
  idle = false;

  constructor(cluster: Cluster, patience: Patience, histories: KvHistories, session: bigint, prefix: Key) {
    super(cluster, patience, session, `watcher of "${prefix}"`);
    this.histories = histories;
    this.watched = { name: this.name, prefix, ranges: [], told: new Set() };
    histories.watched.push(this.watched);
    this.from(0);
  }

  private from(version: number): void {
    this.after = version;
    this.watched.ranges.push({ after: version, upTo: version });
  }

  start(): void {
    const { world } = this;
    if (world.nowMs >= this.stopAtMs) {
      this.idle = true;
      return;
    }
    const { prefix } = this.watched;
    const after = this.after;
    const limit = 1 + world.random.below(world.random.chance(0.5) ? 3 : 100);
    // Of who is asked: that is where it begins anew.
    let newest = 0;
    this.attempt<WatchPage>(
      (kv, _since, done) => {
        newest = kv.info().version;
        kv.watch({ prefix, after, limit, waitMs: 200 }, done);
      },
      (error, page) => {
        if (error === null) this.told(page!);
        else if (error.code === 'OUT_OF_RANGE') this.anew(newest, error);
        else this.cluster.fail(`${this.name}: ${error.message}`);
        world.after(world.random.next() * 20, () => this.start());
      },
    );
  }

  private anew(newest: number, { message }: HoldfastError): void {
    this.world.note(`${this.name}: ${message}`);
    this.from(newest);
  }

  private told({ changes, version }: WatchPage): void {
    const { histories, watched, name } = this;
    let last = this.after;
    for (const change of changes) {
      const { key, value } = change;
      if (change.version <= this.after || change.version < last || change.version > version) {
        this.cluster.fail(`${name}, at ${this.after}, is told of ${change.version} behind ${last}, up to ${version}`);
      }
      if (!key.startsWith(watched.prefix)) this.cluster.fail(`${name} is told of ${key}`);
      last = change.version;
      histories.tell(watched, change.version, key, value === null ? 0 : decodeValue(key, value));
    }
    if (version < this.after) this.cluster.fail(`${name}, at ${this.after}, is told up to ${version}`);
    this.after = version;
    watched.ranges.at(-1)!.upTo = version;
  }
}

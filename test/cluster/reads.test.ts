/**
 * Reads from any replica and from all of them, on real nodes, while others write and nodes die: no reader ever sees
 * what is older than what was acknowledged before it asked.
 */
// deadline: 300 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';

const BLOCK = 4096;
const BLOCKS = 16;
const WRITERS = 3;
const READERS = 4;

/** Each block holds a counter that one writer raises; readers must never see less than was acknowledged when they asked. */
class Counters {
  reads = 0;
  writes = 0;
  private readonly acknowledged: number[] = Array.from({ length: BLOCKS }, () => 0);
  private readonly seen: number[] = Array.from({ length: BLOCKS }, () => 0);
  private stopped = false;
  private readonly tasks: Array<Promise<void>>;

  constructor(writer: Volume, readers: readonly Volume[]) {
    this.tasks = Array.from({ length: WRITERS }, (_, i) => this.write(writer, i));
    for (const reader of readers) for (let i = 0; i < READERS; i++) this.tasks.push(this.read(reader));
  }

  private async write(volume: Volume, lane: number): Promise<void> {
    for (let n = 1; !this.stopped; n++) {
      for (let block = lane; block < BLOCKS; block += WRITERS) {
        const bytes = Buffer.alloc(BLOCK);
        new Float64Array(bytes.buffer, bytes.byteOffset, BLOCK / 8).fill(n);
        await volume.write(block * BLOCK, bytes);
        this.acknowledged[block] = n;
        this.writes++;
      }
    }
  }

  private async read(volume: Volume): Promise<void> {
    for (let i = 0; !this.stopped; i++) {
      const block = (i * 7) % BLOCKS;
      const least = Math.max(this.acknowledged[block]!, this.seen[block]!);
      const bytes = await volume.read(block * BLOCK, BLOCK);
      const words = new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + BLOCK));
      assert.ok(
        words.every((word) => word === words[0]),
        `block ${block} is torn`,
      );
      assert.ok(words[0]! >= least, `block ${block}: ${words[0]} was read after ${least}`);
      this.seen[block] = Math.max(this.seen[block]!, words[0]!);
      this.reads++;
    }
  }

  async more(count: number): Promise<void> {
    const goal = { reads: this.reads + count, writes: this.writes + count / 4 };
    const failed = Promise.all(this.tasks).then(() => {});
    while (this.reads < goal.reads || this.writes < goal.writes) {
      await Promise.race([failed, new Promise((resolve) => setTimeout(resolve, 5))]);
    }
  }

  async end(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.tasks);
  }
}

/** Reads of clients that a node has answered. */
async function readsAt(cluster: TestCluster, node: string): Promise<number> {
  const { replicas } = await nodeStatus(cluster.slot(node).address);
  return replicas[0]!.backupReads;
}

const other = (name: string): string => (name === 'a' ? 'b' : 'a');
const test = suite('cluster, reads');

test('any and all: nothing older than what was acknowledged, while nodes die', async () => {
  const cluster = await TestCluster.start(['a', 'b']);
  try {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const writer = await connect(cluster.url('v'));
    const any = await connect(cluster.url('v'), { reads: 'any' });
    const all = await connect(cluster.url('v'), { reads: 'all' });
    const counters = new Counters(writer, [any, all]);
    await counters.more(400);
    const backup = other(await cluster.primary('v'));
    assert.ok((await readsAt(cluster, backup)) > 0, 'the backup answers reads');
    await cluster.kill(backup);
    await counters.more(200);
    await cluster.restart(backup);
    await cluster.untilSafe();
    await counters.more(200);
    await cluster.kill(other(backup));
    await counters.more(200);
    await cluster.restart(other(backup));
    await cluster.untilSafe();
    await counters.more(200);
    await counters.end();
    await Promise.all([writer, any, all].map((volume) => volume.close()));
    await cluster.stopNodes();
    await cluster.compare('v', ['a', 'b']);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-60).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
});

test.run();

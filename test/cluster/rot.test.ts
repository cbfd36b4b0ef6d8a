/** A byte that changes on a disk under a running volume of two nodes: no reader sees it, and it is mended on the disk. */
// deadline: 120 s
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { admin } from '../../src/client/admin.ts';
import { connect } from '../../src/client/index.ts';
import { byteAt } from '../support/byte-at.ts';
import { TestCluster } from '../support/cluster.ts';
import { until } from '../support/until.ts';

const test = suite('a byte rots under a running volume');
const BLOCK = 4096;
const BLOCKS = 256;

const fill = (block: number): Buffer => Buffer.alloc(BLOCK, (block % 251) + 1);

for (const reads of ['primary', 'any'] as const) {
  test(`on either replica, with readers of ${reads}`, async () => {
    const cluster = await TestCluster.start(['a', 'b']);
    await cluster.create('disk', '16MiB', 2, '--allow-sparse');
    await cluster.untilSafe();
    const volume = await connect(cluster.url('disk'), { reads });
    for (let block = 0; block < BLOCKS; block++) await volume.write(block * BLOCK, fill(block));
    const files = ['a', 'b'].map((name) => join(cluster.slot(name).dir, 'volumes', 'disk', 'data'));
    const written = (): boolean => files.every((file) => byteAt(file, (BLOCKS - 1) * BLOCK) === fill(BLOCKS - 1)[0]);
    await until(written, 'the records are applied on both');
    const primary = ['a', 'b'].indexOf(await cluster.primary('disk'));
    // A backup that nobody reads from finds nothing.
    const victims = reads === 'any' ? [primary, 1 - primary] : [primary];
    let over = false;
    let rounds = 0;
    const reader = async (): Promise<void> => {
      while (!over) {
        for (let block = 0; block < BLOCKS; block += 16) {
          const bytes = await volume.read(block * BLOCK, 16 * BLOCK);
          for (let i = 0; i < 16; i++) {
            assert.ok(fill(block + i).equals(bytes.subarray(i * BLOCK, (i + 1) * BLOCK)), `block ${block + i}`);
          }
        }
        rounds++;
      }
    };
    const readers = Promise.all([reader(), reader()]);
    readers.catch(() => {});
    for (const victim of victims) {
      for (const block of [3, 100, 101, 255]) {
        const at = block * BLOCK + 77;
        byteAt(files[victim]!, at, 0xee ^ fill(block)[0]!);
        const mended = (): boolean => byteAt(files[victim]!, at) === fill(block)[0];
        await Promise.race([until(mended, `block ${block} of ${'ab'[victim]} to be mended`), readers]);
      }
    }
    over = true;
    await readers;
    assert.ok(rounds > 0);
    await volume.close();
    assert.equal(await cluster.stopNodes(), { a: 0, b: 0 });
    await cluster.compare('disk', ['a', 'b']);
    await cluster.stop();
  });
}

test('what nobody reads is found by the scrub, on both', async () => {
  // A pass in about four seconds.
  const cluster = await TestCluster.start(['a', 'b'], { args: ['--scrub-days', '0.00005'] });
  await cluster.create('disk', '16MiB', 2, '--allow-sparse');
  await cluster.untilSafe();
  const volume = await connect(cluster.url('disk'));
  await volume.write(0, Buffer.concat(Array.from({ length: BLOCKS }, (_, block) => fill(block))));
  await volume.close();
  const files = ['a', 'b'].map((name) => join(cluster.slot(name).dir, 'volumes', 'disk', 'data'));
  await until(() => files.every((file) => byteAt(file, (BLOCKS - 1) * BLOCK) === fill(BLOCKS - 1)[0]), 'applied');
  for (const [i, file] of files.entries()) byteAt(file, (20 + i) * BLOCK + 5, 0xee);
  for (const [i, file] of files.entries()) {
    await until(() => byteAt(file, (20 + i) * BLOCK + 5) === fill(20 + i)[0], `the block of ${'ab'[i]} to be mended`);
  }
  for (const name of ['a', 'b']) {
    const { replicas } = await admin(cluster.slot(name).address, { op: 'status' });
    const [replica] = replicas as Array<{ repairedBlocks: number; scrub: { totalBytes: number } }>;
    assert.equal([replica!.repairedBlocks, replica!.scrub.totalBytes], [1, 16 * 1024 * 1024], name);
  }
  await cluster.stop();
});

test.run();

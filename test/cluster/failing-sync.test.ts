/**
 * A sync that fails, once, in its system call: of the journal at the backup, at the primary, and of the data. It is never
 * tried again, clients notice a pause at most, what was acknowledged is at the other replica, the failed one says
 * everywhere that it is poisoned, and one command replaces it.
 */
// deadline: 200 s
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { Load } from '../crash/load.ts';
import { FailingSync, failingSyncMissing } from '../support/failing-sync.ts';
import { HttpCluster } from '../support/http-cluster.ts';

const MiB = 1024 * 1024;
const NODES = ['a', 'b'];
const other = (name: string): string => (name === 'a' ? 'b' : 'a');

const missing = failingSyncMissing();
if (missing !== null) process.stdout.write(`# skip: ${missing}\n`);
else main();

function main(): void {
  const test = suite('failing sync');
  let http: HttpCluster;
  test.before(async () => {
    http = await HttpCluster.start(NODES);
    await http.cluster.create('disk', '16MiB', 2);
    await http.cluster.untilSafe();
  });
  test.after(() => http.cluster.stop());

  /** The next sync of that file fails; `work` is what leads to one. */
  async function fails(victim: string, file: string, load: Load, work: () => Promise<void>): Promise<void> {
    const { cluster } = http;
    const { pid } = cluster.slot(victim).running!.child;
    const failing = await FailingSync.attach(pid!, join(cluster.slot(victim).dir, 'volumes', 'disk', file));
    await work();
    const { volumes } = await cluster.until(({ volumes: [disk] }) => {
      const poisoned = disk?.members.some(({ node, state }) => node === victim && state === 'poisoned') === true;
      return poisoned && disk!.primary === other(victim);
    }, `${victim} to be poisoned, and no primary`);
    await load.more(100);
    const syncs = await failing.detach();
    assert.is(syncs.length, 1, `never tried again: ${syncs.join('; ')}`);
    assert.match(syncs[0]!, /EIO .*\(INJECTED\)/);

    const member = volumes[0]!.members.find(({ node }) => node === victim)!;
    assert.match(member.reason!, new RegExp(`(?:fdatasync|fsync) of ${file} failed.*EIO|${file}.*EIO`));
    const told = await cluster.cli('status');
    assert.match(told.stdout, new RegExp(`^DEGRADED: disk: ${victim} is poisoned`));
    const ready = await fetch(http.url(victim, '/readyz'));
    assert.is(ready.status, 503);
    assert.match(await ready.text(), /poisoned/);
    const metrics = await (await fetch(http.url(victim, '/metrics'))).text();
    assert.match(metrics, /^holdfast_replica_poisoned\{[^}]*volume="disk"[^}]*\} 1$/m);
    assert.is(cluster.slot(victim).running!.child.exitCode, null, 'its process goes on');

    // What was acknowledged is there without the failed one.
    await load.check();
    await cluster.must('volume', 'replace', 'disk', victim, '--wait');
    await cluster.untilSafe();
  }

  test('of the journal at the backup, at the primary, and of the data', async () => {
    const { cluster } = http;
    const volume = await connect(cluster.url('disk'), { retryMs: Infinity });
    const load = new Load(volume);
    await fails(other(await cluster.primary('disk')), 'journal', load, () => load.more(50));
    await fails(await cluster.primary('disk'), 'journal', load, () => load.more(50));
    // Three eighths of a journal of 16 MiB make a checkpoint, which syncs the data.
    await fails(await cluster.primary('disk'), 'data', load, async () => {
      for (let at = 8 * MiB; at < 16 * MiB; at += MiB) await volume.write(at, new Uint8Array(MiB).fill(at / MiB));
    });
    await load.end();
    await volume.close();
    assert.equal(await cluster.stopNodes(), { a: 0, b: 0 });
    await cluster.compare('disk', NODES);
  });
  test.run();
}

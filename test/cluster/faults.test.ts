/**
 * What else may go wrong around a cluster: a primary that is stopped and wakes up, a coordinator that is away, folders
 * that are not a node's, a volume that is none.
 */
// deadline: 300 s
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeStatus, pause } from '../../src/cli/cluster.ts';
import { connect } from '../../src/client/index.ts';
import type { ReplicaStatus } from '../../src/node/hosted-volume.ts';
import { TestCluster } from '../support/cluster.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { ServerProcess, launch } from '../support/server-process.ts';
import { stopProcess } from '../support/stop-process.ts';

const other = (name: string): string => (name === 'a' ? 'b' : 'a');
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();

async function withCluster(names: string[], work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.start(names);
  try {
    await work(cluster);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-120).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
}

const test = suite('cluster, faults');

test('a primary that was stopped wakes up: nobody reads from it what is no longer so', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const primary = await cluster.primary('v');
    const { address, running } = cluster.slot(primary);
    const old = await connect(`holdfast://${address}/v`, { retryMs: 2000 });
    await old.write(0, Buffer.from('before'));
    await stopProcess(running!.child);
    // These lie in its sockets until it wakes.
    let awake = false;
    const late = Array.from({ length: 50 }, async () => {
      const outcome = await old.read(0, 6).then(text, (error: { code: string }) => error.code);
      return { outcome, awake };
    });
    const writing = old.write(8192, Buffer.from('late')).then(
      () => 'written',
      (error: { code: string }) => error.code,
    );
    const fresh = await connect(`holdfast://${cluster.slot(other(primary)).address}/v`, { connectMs: 30_000 });
    await fresh.write(0, Buffer.from('after!'));
    // What the successor answered before is handed out before.
    await pause(50);
    awake = true;
    running!.child.kill('SIGCONT');
    for (const one of await Promise.all(late)) {
      // The client finds the successor by itself, and may be quicker there than the write.
      const expected = one.awake ? /^(?:after!|[A-Z_]+)$/ : /^(?:before|after!|[A-Z_]+)$/;
      assert.match(one.outcome, expected, `awake: ${one.awake}`);
    }
    // The client has found the successor meanwhile, perhaps: then it was written there, for everybody.
    if ((await writing) === 'written') assert.is(text(await fresh.read(8192, 4)), 'late', 'it had no right to');
    assert.is(text(await fresh.read(0, 6)), 'after!');
    await old.close();
    await fresh.close();
    await cluster.untilSafe();
    await cluster.stopNodes();
    await cluster.compare('v', ['a', 'b']);
  }));

test('without the coordinator all goes on; a backup that is lost then holds writes up until it is back', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const backup = other(await cluster.primary('v'));
    const volume = await connect(cluster.url('v'));
    const { address, url } = cluster.coordinator;
    await cluster.coordinator.kill();
    await volume.write(0, Buffer.from('alone'));
    assert.is(text(await volume.read(0, 5)), 'alone');
    const { code, stdout } = await cluster.cli('status');
    assert.is(code, 3);
    assert.match(stdout, /NOT KNOWN/);
    const json = await cluster.cli('status', '--json');
    assert.is(json.code, 3);
    const { verdict, answer, error } = JSON.parse(json.stdout) as Record<string, unknown>;
    assert.is(verdict, 'unknown');
    assert.match(String(answer), /^NOT KNOWN: /);
    assert.is((error as { code: string }).code, 'UNREACHABLE');
    await cluster.kill(backup);
    let written = false;
    const writing = volume.write(0, Buffer.from('waits')).then(() => (written = true));
    // The primary knows that it has lost the other one, and cannot have that written down.
    const primary = cluster.slot(other(backup)).address;
    const lost = (peers: ReplicaStatus['peers']): boolean => peers.every(({ phase }) => phase !== 'joined');
    while (!lost((await nodeStatus(primary)).replicas[0]!.peers));
    await nodeStatus(primary);
    assert.not(written, 'acknowledged by one, while the register says that there are two');
    cluster.coordinator = await CoordinatorProcess.start(join(cluster.dir, 'coordinator'), address);
    assert.is(cluster.coordinator.url, url);
    await writing;
    await cluster.restart(backup);
    await cluster.untilSafe();
    assert.is(text(await volume.read(0, 5)), 'waits');
    await volume.close();
  }));

test('a volume that was served by itself becomes a replicated one', () =>
  withCluster(['a', 'b'], async (cluster) => {
    const dir = join(cluster.dir, 'single');
    const server = await ServerProcess.start(dir, ['--size', '16MiB']);
    const before = await connect(server.url);
    await before.write(12_345, Buffer.from('from before'));
    await before.close();
    await server.kill('SIGTERM');
    await cluster.create('single', '16MiB', 2, '--from', dir, '--node', 'b');
    await cluster.untilSafe();
    const volume = await connect(cluster.url('single'));
    assert.is(text(await volume.read(12_345, 11)), 'from before');
    await cluster.kill(await cluster.primary('single'));
    assert.is(text(await volume.read(12_345, 11)), 'from before', 'the other one has it too');
    await volume.close();
  }));

test('folders that are no replicas are reported, and stop nobody', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    await cluster.stopNodes();
    const volumes = join(cluster.slot('a').dir, 'volumes');
    await cluster.must('volume', 'create', join(volumes, 'alone'), '--size', '1MiB', '--allow-sparse');
    cpSync(join(volumes, 'v'), join(volumes, 'broken'), { recursive: true });
    rmSync(join(volumes, 'broken', 'lock'), { force: true });
    writeFileSync(join(volumes, 'broken', 'meta'), 'nothing of a superblock');
    await cluster.restart('a');
    await cluster.restart('b');
    const { nodes } = await cluster.untilSafe();
    const reasons = nodes.find(({ node }) => node === 'a')!.unopened;
    assert.is(reasons.length, 2, JSON.stringify(reasons));
    assert.match(reasons.find(({ dir }) => dir.endsWith('alone'))!.reason, /an only copy/);
    assert.ok(reasons.some(({ dir }) => dir.endsWith('broken')));
  }));

test("a node's folder has one name, and one process", () =>
  withCluster(['a'], async (cluster) => {
    const { dir } = cluster.slot('a');
    const start = (name: string): Promise<string> =>
      launch(
        ['node', '--name', name, '--dir', dir, '--coordinator', cluster.coordinator.url].concat(
          '--listen',
          '127.0.0.1:0',
          '--peer-listen',
          '127.0.0.1:0',
        ),
        {},
      ).then(
        () => 'it started',
        (error: Error) => error.message,
      );
    assert.match(await start('a'), /in use by another process/);
    await cluster.kill('a', 'SIGTERM');
    assert.match(await start('z'), /the folder of the node "a", not of "z"|\\"a\\", not of \\"z\\"/);
    await cluster.restart('a');
  }));

test.run();

/** Registers in a real etcd: the contract, three members of which one is killed or stopped, users, TLS and its renewal. */
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { coordinatorOf } from '../../src/cli/coordinator-flags.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import type { Coordinator, Register } from '../../src/coordination/register.ts';
import { rejectsWith } from '../contract/block-device.ts';
import { coordinatorContract, next } from '../contract/coordinator.ts';
import { Contender, EtcdCluster, etcdMissing, newRegister } from '../support/coordinators.ts';
import { temporaryFolder } from '../support/server-process.ts';
import { TestCa } from '../support/tls-files.ts';
import { until } from '../support/until.ts';
import { stopProcess } from '../support/stop-process.ts';

const missing = etcdMissing();
if (missing !== null) console.log(`# skip: ${missing}`);
else await main();

async function main(): Promise<void> {
  const base = temporaryFolder();
  // Before any suite is registered: uvu begins to run at the first pause.
  const [single, three] = [
    await EtcdCluster.start(join(base, 'one'), 1),
    await EtcdCluster.start(join(base, 'three'), 3),
  ];
  await single.ready();
  await three.ready();

  coordinatorContract(
    'etcd',
    () => openCoordinator(single.url),
    () => Promise.resolve(),
  );

  const etcd = suite('coordination: etcd');
  etcd.after(async () => {
    await single.stop();
    await three.stop();
  });

  etcd('a prefix is a world of its own', async () => {
    const [ours, theirs] = [openCoordinator(`${single.url}/a/b`), openCoordinator(`${single.url}/a/c`)];
    const first = await ours.create(newRegister());
    assert.equal(await ours.list(), [first]);
    assert.equal(await theirs.list(), []);
    assert.is(await theirs.read(first.volumeId), null);
    assert.match(single.ctl('get', '--prefix', '--keys-only', 'a/b/'), new RegExp(`a/b/registers/${first.volumeId}`));
    await ours.close();
    await theirs.close();
  });

  etcd('more registers than one page holds are all listed', async () => {
    const client = openCoordinator(`${single.url}/many`);
    for (let i = 0; i < 13; i++) await Promise.all(Array.from({ length: 20 }, () => client.create(newRegister())));
    assert.is(new Set((await client.list()).map(({ volumeId }) => volumeId)).size, 260);
    await client.close();
  });

  etcd('a register that somebody else spoilt is DAMAGED, the others are good', async () => {
    const client = openCoordinator(`${single.url}/spoilt`);
    const [first, second] = [await client.create(newRegister()), await client.create(newRegister())];
    single.ctl('put', `spoilt/registers/${first.volumeId}`, JSON.stringify({ ...first, epoch: 'x' }));
    await rejectsWith('DAMAGED', () => client.read(first.volumeId));
    await rejectsWith('DAMAGED', () => client.compareAndSet(1, next(first)));
    assert.equal(await client.read(second.volumeId), second);
    await client.close();
  });

  etcd('a member is killed while processes change one register: every win stands, versions rise by one', async () => {
    const client = openCoordinator(three.url, { deadlineMs: 20_000 });
    const { volumeId } = await client.create(newRegister());
    const told: Register[] = [];
    client.watch(volumeId, (register) => told.push(register));
    const contenders = ['a', 'b', 'a', 'b'].map((node) => new Contender(three.url, volumeId, node, Infinity));
    const wins = (): number => contenders.reduce((sum, { won }) => sum + won.length, 0);
    await until(() => wins() >= 20, 'changes');
    // The leader, so that requests are cut off in the middle, and a new one must be found.
    await three.kill(three.leader());
    const before = wins();
    await until(() => wins() >= before + 20, 'changes after the kill');
    for (const contender of contenders) contender.stop();
    for (const { exited } of contenders) assert.is(await exited, 0);
    const last = (await client.read(volumeId))!;
    const versions = contenders.flatMap(({ won }) => won.map(({ version }) => version));
    const unknown = contenders.reduce((sum, contender) => sum + contender.unknown.size, 0);
    assert.is(new Set(versions).size, versions.length, 'a version was won twice');
    assert.ok(Math.max(...versions) <= last.version);
    assert.ok(last.version - 1 - versions.length <= unknown, `${last.version} ${versions.length} ${unknown}`);
    assert.is(last.epoch, last.version - 1);
    await until(() => told.at(-1)?.version === last.version, 'the newest version');
    await client.close();
  });

  etcd('a member that is stopped: reads, changes and watches go to the other one', async () => {
    // Whichever of the three was killed above: with it and one more away there is no majority, so it is a new cluster.
    const cluster = await EtcdCluster.start(join(base, 'stopped'), 3);
    try {
      await cluster.ready();
      const [stopped, ...others] = followersFirst(cluster).map((i) => cluster.members[i]!);
      const hosts = [stopped, ...others].map((member) => `127.0.0.1:${member!.clientPort}`);
      const client = openCoordinator(`etcd://${hosts.join(',')}`, { deadlineMs: 20_000, attemptMs: 300, pollMs: 200 });
      const other = openCoordinator(`etcd://${hosts.slice(1).join(',')}`);
      const first = await client.create(newRegister());
      const told: Register[] = [];
      client.watch(first.volumeId, (register) => told.push(register));
      await until(() => told.length === 1, 'the register');
      await stopProcess(stopped!.child);
      assert.equal(await client.read(first.volumeId), first);
      const { outcome, register } = await client.compareAndSet(1, next(first));
      assert.is(outcome, 'done');
      const newest = (await other.compareAndSet(2, next(register))).register;
      await until(() => told.at(-1)?.version === newest.version, 'the newest version');
      await other.close();
      await client.close();
    } finally {
      await cluster.stop();
    }
  });

  etcd('without a majority there is no answer, and no wrong one', async () => {
    const cluster = await EtcdCluster.start(join(base, 'minority'), 3);
    try {
      await cluster.ready();
      const client = openCoordinator(cluster.url);
      const first = await client.create(newRegister());
      for (const { child } of cluster.members.slice(1)) await stopProcess(child);
      const hasty = openCoordinator(cluster.url, { deadlineMs: 600, attemptMs: 200 });
      await rejectsWith('DEADLINE', () => hasty.read(first.volumeId));
      await rejectsWith('DEADLINE', () => hasty.compareAndSet(1, next(first)));
      for (const { child } of cluster.members.slice(1)) child.kill('SIGCONT');
      const patient = openCoordinator(cluster.url, { deadlineMs: 20_000 });
      assert.equal(await patient.read(first.volumeId), first);
      for (const each of [client, hasty, patient]) await each.close();
    } finally {
      await cluster.stop();
    }
  });

  etcd('users and passwords: the right one only, and a token that etcd forgot is replaced', async () => {
    const cluster = await EtcdCluster.start(join(base, 'users'), 1);
    try {
      await cluster.ready();
      cluster.ctl('user', 'add', 'root:secret');
      cluster.ctl('role', 'add', 'holdfast');
      cluster.ctl('role', 'grant-permission', 'holdfast', 'readwrite', 'holdfast/', 'holdfast0');
      cluster.ctl('user', 'add', 'h:pass');
      cluster.ctl('user', 'grant-role', 'h', 'holdfast');
      cluster.ctl('user', 'grant-role', 'root', 'root');
      cluster.ctl('auth', 'enable');
      const open = (user: string, password: string): Coordinator => openCoordinator(cluster.url, { user, password });
      const client = open('h', 'pass');
      const first = await client.create(newRegister());
      const told: Register[] = [];
      client.watch(first.volumeId, (register) => told.push(register));
      await client.announce({ node: 'n1', address: 'n1:1', clientAddress: 'n1:2', freeBytes: 1 });
      assert.is((await client.nodes()).length, 1);
      await until(() => told.length === 1, 'the register');
      // It forgets all tokens so; the watch goes on.
      cluster.ctl('--user', 'root:secret', 'user', 'add', 'somebody:else');
      cluster.ctl('--user', 'root:secret', 'auth', 'disable');
      cluster.ctl('auth', 'enable');
      const { outcome } = await client.compareAndSet(1, next(first));
      assert.is(outcome, 'done');
      await until(() => told.at(-1)?.version === 2, 'the change');
      const others = [
        open('h', 'wrong'),
        open('nobody', 'pass'),
        open('somebody', 'else'),
        openCoordinator(cluster.url),
      ];
      for (const other of others) await rejectsWith('ACCESS', () => other.read(first.volumeId));
      for (const each of [client, ...others]) await each.close();
    } finally {
      await cluster.stop();
    }
  });

  etcd('TLS: the CA decides on etcd, and etcd on us', async () => {
    const ca = new TestCa(join(base, 'ca'));
    const server = ca.issue('server');
    const cluster = await EtcdCluster.start(join(base, 'tls'), 1, { ...server, caFile: ca.certFile });
    try {
      const { certFile, keyFile } = ca.issue('node');
      const text = (file: string): string => readFileSync(file, 'utf8');
      const [caText, cert, key] = [text(ca.certFile), text(certFile), text(keyFile)];
      const client = openCoordinator(cluster.url, { tls: { ca: caText, cert, key }, deadlineMs: 20_000 });
      const first = await client.create(newRegister());
      assert.is((await client.compareAndSet(1, next(first))).outcome, 'done');
      const told: Register[] = [];
      client.watch(first.volumeId, (register) => told.push(register));
      await until(() => told.at(-1)?.version === 2, 'the register');
      const strangers: Array<[Coordinator, RegExp]> = [
        [openCoordinator(cluster.url, { tls: { cert, key }, deadlineMs: 300 }), /ACCESS.*certificate/],
        [
          openCoordinator(cluster.url, { tls: { ca: caText }, deadlineMs: 300 }),
          /^(?:ACCESS|DEADLINE).*(?:certificate|alert|hang up)/,
        ],
        [
          openCoordinator(cluster.url.replace('etcds', 'etcd'), { deadlineMs: 300 }),
          /^(?:DEADLINE|IO_ERROR) .*(?:hang up|ECONNRESET|HTTP request to an HTTPS|HTTP 400)/,
        ],
      ];
      for (const [stranger, words] of strangers) {
        const outcome = await stranger.read(first.volumeId).then(
          () => 'an answer',
          (error: HoldfastError) => `${error.code} ${error.message}`,
        );
        assert.match(outcome, words);
        await stranger.close();
      }
      await client.close();
    } finally {
      await cluster.stop();
    }
  });

  etcd('TLS: new files, of a new CA too, are in force without a restart', async () => {
    const renewed = join(base, 'renewed');
    const [old, young] = [new TestCa(renewed), new TestCa(join(base, 'next-ca'))];
    const server = old.issue('server');
    const { certFile, keyFile } = old.issue('node');
    const files = { ...server, caFile: join(renewed, 'trusted.pem') };
    copyFileSync(old.certFile, files.caFile);
    const cluster = await EtcdCluster.start(join(base, 'renewal'), 1, files);
    const env = { HOLDFAST_ETCD_CA: old.certFile, HOLDFAST_ETCD_CERT: certFile, HOLDFAST_ETCD_KEY: keyFile };
    Object.assign(process.env, env);
    const client = coordinatorOf({ coordinator: cluster.url }, { deadlineMs: 20_000, pollMs: 200 });
    try {
      await cluster.ready();
      const first = await client.create(newRegister());
      const told: Register[] = [];
      client.watch(first.volumeId, (register) => told.push(register));
      await until(() => told.length === 1, 'the register');
      // In the middle of a renewal the certificate and the key do not go together: the old ones go on.
      const [newServer, newNode] = [young.issue('server'), young.issue('node')];
      copyFileSync(newNode.certFile, certFile);
      assert.equal(await client.read(first.volumeId), first);
      // A CA that is being written: nothing of it is there yet, and then half of it.
      copyFileSync(newNode.keyFile, keyFile);
      for (const part of ['', readFileSync(young.certFile, 'utf8').slice(0, 300)]) {
        writeFileSync(old.certFile, part);
        assert.equal(await client.read(first.volumeId), first);
      }
      copyFileSync(young.certFile, old.certFile);
      // etcd trusts and shows what is new when it is started anew.
      await cluster.kill(0);
      copyFileSync(newServer.certFile, server.certFile);
      copyFileSync(newServer.keyFile, server.keyFile);
      copyFileSync(young.certFile, files.caFile);
      cluster.restart(0);
      await cluster.ready();
      assert.equal(await client.read(first.volumeId), first);
      assert.is((await client.compareAndSet(1, next(first))).outcome, 'done');
      await until(() => told.at(-1)?.version === 2, 'the change, by a watch under the new files');
    } finally {
      await client.close();
      for (const name of Object.keys(env)) delete process.env[name];
      await cluster.stop();
    }
  });

  etcd.run();
}

function followersFirst(cluster: EtcdCluster): number[] {
  const leader = cluster.leader();
  return [0, 1, 2].filter((i) => i !== leader).concat(leader);
}

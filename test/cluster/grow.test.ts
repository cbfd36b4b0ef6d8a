/**
 * A replicated volume grows while a client writes without pause: on every replica, and over a node that is killed in the
 * middle of it.
 */
// deadline: 120 s
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Volume } from '../../src/client/index.ts';
import { admin } from '../../src/client/admin.ts';
import { connect } from '../../src/client/index.ts';
import { ClientNbdDevice } from '../../src/gateway/client-nbd-device.ts';
import { nodeStatus } from '../../src/cli/cluster.ts';
import { TestCluster } from '../support/cluster.ts';
import { Random } from '../support/random.ts';
import { until } from '../support/until.ts';

const test = suite('grow');
const MiB = 1024 * 1024;
const CHUNK = 16 * 1024;

/** Writes at places drawn from a seed, one after the other, until it is told to stop; it knows what must be there. */
class Writer {
  readonly content: Buffer;
  writes = 0;
  private readonly volume: Volume;
  private readonly random = new Random(16);
  private stopping = false;
  private readonly over: Promise<void>;

  constructor(volume: Volume, bytes: number) {
    this.volume = volume;
    this.content = Buffer.alloc(bytes);
    this.over = this.run();
    // Looked at when it is stopped.
    this.over.catch(() => {});
  }

  private async run(): Promise<void> {
    while (!this.stopping) {
      const at = this.random.below(this.content.length / CHUNK) * CHUNK;
      const bytes = this.random.bytes(CHUNK);
      await this.volume.write(at, bytes);
      this.content.set(bytes, at);
      this.writes++;
    }
  }

  /** @throws if a write failed */
  async stop(): Promise<void> {
    this.stopping = true;
    await this.over;
  }
}

const folder = (cluster: TestCluster, node: string, volume = 'disk'): string =>
  join(cluster.slot(node).dir, 'volumes', volume);

const sizesOf = async (cluster: TestCluster): Promise<Array<[size: number, capacity: number]>> => {
  const all = await Promise.all([...cluster.nodes.values()].map(({ address }) => nodeStatus(address)));
  return all.map(({ replicas }) => [replicas[0]!.sizeBytes, replicas[0]!.capacityBytes]);
};

async function assertContent(volume: Volume, writer: Writer, what: string): Promise<void> {
  assert.ok(writer.content.equals(await volume.read(0, writer.content.length)), what);
}

/** Why it is refused. */
async function code(cluster: TestCluster, size: string): Promise<string> {
  const { stdout } = await cluster.cli('volume', 'grow', 'disk', '--size', size, '--json');
  return (JSON.parse(stdout) as { error: { code: string } }).error.code;
}

/** Kills a node as soon as its disk is being enlarged. @returns what the command says */
async function growAndKill(cluster: TestCluster, victim: string, size: string): Promise<string> {
  const marker = join(folder(cluster, victim), 'growing');
  const command = cluster.cli('volume', 'grow', 'disk', '--size', size);
  await until(() => existsSync(marker), `${victim} to begin`);
  await cluster.kill(victim);
  const { code, stderr } = await command;
  assert.is(code, 1);
  return stderr;
}

test('while a client writes; a node is killed in the middle, and the command is given again', async () => {
  const cluster = await TestCluster.start(['a', 'b']);
  await cluster.create('disk', '16MiB', 2);
  await cluster.untilSafe();
  const volume = await connect(cluster.url('disk'));
  const writer = new Writer(volume, 16 * MiB);
  await until(() => writer.writes > 20, 'the first writes');
  const primary = await cluster.primary('disk');
  const backup = primary === 'a' ? 'b' : 'a';

  // --- no accident ---
  const before = writer.writes;
  const lines = (await cluster.must('volume', 'grow', 'disk', '--size', '48MiB')).trim().split('\n');
  assert.equal(lines.slice(0, 2).sort(), ['a: the room is reserved', 'b: the room is reserved']);
  assert.equal(lines.slice(2), [
    `${backup}: its disk has room for 48 MiB`,
    `${primary}: its disk has room for 48 MiB`,
    'disk has grown from 16 MiB to 48 MiB, on a, b',
  ]);
  assert.ok(writer.writes > before, 'the writer went on');
  assert.is(volume.sizeBytes, 16 * MiB, 'nobody has told it yet');
  // A gateway asks before each handshake.
  const gateway = new ClientNbdDevice(volume, false);
  assert.is(gateway.export.sizeBytes, 16 * MiB);
  await gateway.refresh();
  assert.is(gateway.export.sizeBytes, 48 * MiB);
  assert.is((await volume.info()).sizeBytes, 48 * MiB);
  assert.is(volume.sizeBytes, 48 * MiB);
  assert.ok(
    (await volume.read(16 * MiB, 32 * MiB)).every((byte) => byte === 0),
    'the new area is zeros',
  );
  const tail = new Random(3).bytes(MiB);
  await volume.write(47 * MiB, tail);
  await cluster.untilSafe();
  assert.equal(await sizesOf(cluster), [
    [48 * MiB, 48 * MiB],
    [48 * MiB, 48 * MiB],
  ]);

  // --- less ---
  const less = await cluster.cli('volume', 'grow', 'disk', '--size', '32MiB');
  assert.is(less.code, 1);
  assert.match(less.stderr, /volumes do not shrink/);
  assert.is(await code(cluster, '17TiB'), 'TOO_LARGE');

  // --- a node dies while its disk is being enlarged ---
  const victim = await cluster.primary('disk');
  const said = await growAndKill(cluster, victim, '128MiB');
  assert.match(said, new RegExp(`${victim}.*holdfast volume grow disk --size ${128 * MiB}`, 's'));
  await cluster.untilServed('disk');
  const refused = await cluster.cli('volume', 'grow', 'disk', '--size', '128MiB');
  assert.is(refused.code, 1, 'not while a member is away');
  assert.match(refused.stderr, new RegExp(`${victim}.*remove-replica disk --node ${victim}`, 's'));
  await cluster.restart(victim);
  await cluster.untilSafe();
  assert.is((await volume.info()).sizeBytes, 48 * MiB, 'the size is what it was');
  const left = ['growing', 'meta.grown'].filter((name) => readdirSync(folder(cluster, victim)).includes(name));
  assert.equal(left, [], 'its opening has cleared away what was left');
  assert.is(statSync(join(folder(cluster, victim), 'data')).size, 48 * MiB);
  // What a command that was killed has left prepared is in nobody's way.
  const { volumeId } = (await cluster.status()).volumes[0]!;
  const request = { op: 'grow-replica', volumeId, sizeBytes: 64 * MiB, action: 'prepare' };
  let state: unknown = '';
  while (state !== 'prepared') ({ state } = await admin(cluster.slot(victim).address, request));
  assert.is(statSync(join(folder(cluster, victim), 'data')).size, 64 * MiB);
  const events = (await cluster.must('volume', 'grow', 'disk', '--size', '128MiB', '--json')).trim().split('\n');
  const last = JSON.parse(events.at(-1)!) as object;
  assert.equal(last, { event: 'grown', fromBytes: 48 * MiB, sizeBytes: 128 * MiB, volume: 'disk' });
  assert.is((await volume.info()).sizeBytes, 128 * MiB);
  await volume.write(127 * MiB, tail);

  // --- both replicas have the same, and what was acknowledged ---
  await writer.stop();
  await cluster.untilSafe();
  assert.match(await cluster.must('volume', 'verify', 'disk'), /^EQUAL: disk/);
  const everywhere = await connect(cluster.url('disk'), { reads: 'all' });
  await assertContent(everywhere, writer, 'what was written');
  for (const at of [47 * MiB, 127 * MiB]) assert.equal(await everywhere.read(at, MiB), tail);
  assert.ok((await everywhere.read(48 * MiB, 16 * MiB)).every((byte) => byte === 0));
  await everywhere.close();
  await volume.close();
  assert.equal(await cluster.stopNodes(), { a: 0, b: 0 });
  for (const node of ['a', 'b']) assert.is(statSync(join(folder(cluster, node), 'data')).size, 128 * MiB);
  await cluster.stop();
});

test.run();

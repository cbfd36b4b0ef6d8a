/**
 * SIGKILL under load, eight times: every acknowledged write is there afterwards, every other one is old or new as a
 * whole. Aligned and unaligned writers side by side, each with a shadow of its own range.
 */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../support/random.ts';
import { RawClient } from '../support/raw-client.ts';
import { ServerProcess, holdfast, temporaryFolder } from '../support/server-process.ts';

const test = suite('SIGKILL under load');
const ROUNDS = 8;
const LANES = 8;
const LANE_BYTES = 512 * 1024;

interface Lane {
  base: number;
  shadow: Uint8Array;
  /** The write that was sent and not answered. */
  pending: { at: number; bytes: Uint8Array } | null;
  acknowledged: number;
}

async function writeUntilLost(lane: Lane, client: RawClient, random: Random, firstRequest: number): Promise<void> {
  for (let request = firstRequest; ; request++) {
    const aligned = random.chance(0.5);
    const length = aligned ? 4096 * (1 + random.below(8)) : 1 + random.below(20_000);
    let at = random.below(LANE_BYTES - length);
    if (aligned) at -= at % 4096;
    const bytes = random.bytes(length);
    lane.pending = { at, bytes };
    const reply = await client.write(request, lane.base + at, bytes);
    if (reply.status === -1) return;
    assert.is(reply.error, null);
    lane.shadow.set(bytes, at);
    lane.pending = null;
    lane.acknowledged++;
  }
}

async function contentOf(client: RawClient, lane: Lane): Promise<Uint8Array> {
  const content = new Uint8Array(LANE_BYTES);
  for (let at = 0; at < LANE_BYTES; at += 256 * 1024) {
    const reply = await client.read(lane.base + at, 256 * 1024);
    assert.is(reply.error, null);
    content.set(reply.payload!, at);
  }
  return content;
}

test(`${ROUNDS} rounds`, async () => {
  const dir = join(temporaryFolder(), 'vol');
  const lanes: Lane[] = Array.from({ length: LANES }, (_, i) => ({
    base: i * LANE_BYTES,
    shadow: new Uint8Array(LANE_BYTES),
    pending: null,
    acknowledged: 0,
  }));
  let replayed = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = new Random(round);
    const server = await ServerProcess.start(dir, ['--size', '16MiB']);
    assert.is(server.info.health, 'good');
    replayed += server.info.recovered?.records ?? 0;
    const clients = await Promise.all(
      lanes.map((_, i) => RawClient.attached(server.port, BigInt(1 + i + 100 * round), 1)),
    );
    await Promise.all(
      lanes.map(async (lane, i) => {
        const now = await contentOf(clients[i]!, lane);
        if (Buffer.compare(now, lane.shadow) !== 0) {
          assert.ok(lane.pending !== null, `round ${round} lane ${i}: an acknowledged write is lost`);
          lane.shadow.set(lane.pending.bytes, lane.pending.at);
          assert.is(
            Buffer.compare(now, lane.shadow),
            0,
            `round ${round} lane ${i}: the write at ${lane.pending.at} is neither old nor new, or another one is lost`,
          );
        }
        lane.pending = null;
      }),
    );
    const writers = lanes.map((lane, i) => writeUntilLost(lane, clients[i]!, new Random(round * 100 + i), 1));
    await new Promise((resolve) => setTimeout(resolve, 50 + random.below(250)));
    assert.equal(await server.kill(), { code: null, signal: 'SIGKILL' });
    await Promise.all(writers);
  }
  const acknowledged = lanes.reduce((sum, lane) => sum + lane.acknowledged, 0);
  assert.ok(acknowledged > ROUNDS * LANES, `there was load: ${acknowledged} writes`);
  assert.ok(replayed > 0, 'recovery had something to replay');
  const check = await holdfast(['volume', 'check', dir, '--flatten', '--json']);
  assert.is(check.code, 0, check.stderr);
  assert.is((JSON.parse(check.stdout.toString()) as { badBlocks: number }).badBlocks, 0);
});

test('killed while it is being opened, again and again, it still opens with everything', async () => {
  const dir = join(temporaryFolder(), 'vol');
  const server = await ServerProcess.start(dir, ['--size', '16MiB']);
  const client = await RawClient.attached(server.port, 1n, 1);
  const bytes = new Random(1).bytes(256 * 1024);
  for (let i = 0; i < 40; i++) assert.is((await client.write(i + 1, i * 300_007, bytes)).error, null);
  const digest = async (port: number): Promise<string> => {
    const reader = await RawClient.attached(port, 2n, 1);
    const hash = createHash('sha256');
    for (let at = 0; at < 16 * 1024 * 1024; at += 256 * 1024) hash.update((await reader.read(at, 256 * 1024)).payload!);
    reader.close();
    return hash.digest('hex');
  };
  const expected = await digest(server.port);
  await server.kill();
  for (let i = 0; i < 8; i++) {
    // Cut off at different instants of starting: before, in and after recovery.
    const opening = ServerProcess.start(dir).catch(() => null);
    await new Promise((resolve) => setTimeout(resolve, 60 + i * 25));
    const pid = await holderOf(dir);
    if (pid !== null) process.kill(pid, 'SIGKILL');
    await (await opening)?.kill();
  }
  const last = await ServerProcess.start(dir);
  assert.is(await digest(last.port), expected);
  assert.is((await last.kill('SIGTERM')).code, 0);
});

async function holderOf(dir: string): Promise<number | null> {
  const { readFile } = await import('node:fs/promises');
  const text = await readFile(join(dir, 'lock'), 'utf8').catch(() => '');
  const pid = Number(/"pid":\s*(\d+)/.exec(text)?.[1]);
  if (!(pid > 0)) return null;
  const alive = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return alive.includes('serve') ? pid : null;
}

test.run();

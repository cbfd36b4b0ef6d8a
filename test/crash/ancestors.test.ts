/**
 * What was wrong in the store that this one grew from, F-1 to F-16, each as a check of its own on real nodes. Where
 * there is a closer test, it is named.
 *
 * | finding                                             | closer test                                              |
 * | --------------------------------------------------- | -------------------------------------------------------- |
 * | F-1 promotion does not write what was prepared      | crash matrix C-3, C-5, C-18                              |
 * | F-2 reads at the second node return nothing         | client/reads                                             |
 * | F-3 data ends at a NUL byte                         | contract/block-device                                    |
 * | F-4 writes beyond 16 MiB fail                       | contract/block-device, storage/layout                    |
 * | F-5 overlapping writes are replayed in any order    | replication/range-lock, simulation                       |
 * | F-6 a crash after phase 2 hangs writes for ever     | crash matrix C-12, C-13                                  |
 * | F-7 a deferred read misses writes that overlap it   | replication/range-lock                                   |
 * | F-8 writes during reintegration are in no phase     | simulation (redirty, drainRecords), findings F12         |
 * | F-9 acknowledged though the backup failed to take it | crash matrix C-6, C-7, simulation (casBeforeAck)        |
 * | F-10 nothing is synced                              | storage/recovery, process/kill, crash matrix C-15        |
 * | F-11 the log is never trimmed                       | storage/journal                                          |
 * | F-12 clocks of two machines are compared            | simulation (clocks), crash matrix C-19                   |
 * | F-13 two primaries                                  | crash partitions, crash matrix (one opener per epoch)    |
 * | F-14 writes are serial                              | replication/range-lock                                   |
 * | F-15 a commit of an unknown address crashes         | fuzz/peer-frames, protocol/peer                          |
 * | F-16 32-bit addresses, two hosts                    | cluster (three replicas), storage/layout                 |
 */
// deadline: 200 s
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Volume, connect } from '../../src/client/index.ts';
import { Random } from '../support/random.ts';
import { stopProcess } from '../support/stop-process.ts';
import { Matrix, NODES, VOLUME, other } from './matrix.ts';
import { refusesAlone } from './plays.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const BLOCK = 4096;
/** Behind what the matrix's clients write. */
const BASE = 2 * MiB;

let matrix: Matrix;
let atAll: Volume;
const test = suite('ancestors');

test.before(async () => {
  matrix = await Matrix.start('embedded', '64MiB');
  atAll = await connect(matrix.cluster.url(VOLUME), { reads: 'all', retryMs: Infinity });
});

test.after(async () => {
  await atAll.close();
  await matrix.stop();
});

const random = new Random(2022);

async function holds(volume: Volume, at: number, bytes: Uint8Array, what: string): Promise<void> {
  assert.is(Buffer.compare(await volume.read(at, bytes.length), bytes), 0, what);
}

/** Kills the primary when it comes to the point. @returns its name */
async function crashPrimary(point: Parameters<Matrix['arm']>[1]): Promise<string> {
  const name = await matrix.primary();
  await matrix.arm(name, point);
  await matrix.crashed(name, point);
  await matrix.untilPrimary(other(name));
  return name;
}

async function back(name: string): Promise<void> {
  await matrix.cluster.restart(name);
  await matrix.untilSafe();
}

test('F-1: promotion serves what was prepared, also after one more restart', async () => {
  const bytes = random.bytes(100);
  const name = await matrix.primary();
  await matrix.load.more(20);
  await matrix.volume.write(BASE + 4001, bytes);
  await matrix.kill(name);
  await holds(matrix.volume, BASE + 4001, bytes, 'lost by the promotion');
  await matrix.kill(other(name));
  await matrix.cluster.restart(other(name));
  await holds(matrix.volume, BASE + 4001, bytes, 'served, and not on the disk');
  await back(name);
});

test('F-2, F-7: reads at every replica are compared, while writes overlap them', async () => {
  const at = BASE + 16 * BLOCK;
  const last = new Uint8Array(6000);
  for (let i = 0; i < 40; i++) {
    // Begins in an earlier block than what is read.
    const bytes = new Uint8Array(6000).fill(i + 1);
    const write = matrix.volume.write(at + 3000, bytes);
    const seen = await atAll.read(at + BLOCK, 2000);
    assert.is(new Set(seen).size, 1, 'half a write was read');
    assert.ok(seen[0] === i || seen[0] === i + 1, `${seen[0]} while ${i + 1} is written over ${i}`);
    await write;
    last.set(bytes);
  }
  await holds(atAll, at + 3000, last, 'all replicas');
});

test('F-3, F-4, F-16: NUL bytes, beyond 16 MiB, across the last blocks, at odd offsets', async () => {
  const { sizeBytes } = matrix.volume;
  assert.ok(sizeBytes > 16 * MiB);
  for (const at of [16 * MiB - 50, 16 * MiB, 17 * MiB + 1, sizeBytes - 100]) {
    const bytes = random.bytes(100);
    bytes.fill(0, 0, 30);
    bytes[99] = 0;
    await matrix.volume.write(at, bytes);
    await holds(atAll, at, bytes, `at ${at}`);
  }
  const wrong = await matrix.volume
    .write(sizeBytes - 50, new Uint8Array(100))
    .catch((error: { code: string }) => error);
  assert.is((wrong as { code: string }).code, 'OUT_OF_RANGE');
  const huge = await matrix.volume.write(2 ** 31 + 1, new Uint8Array(1)).catch((error: { code: string }) => error);
  assert.is((huge as { code: string }).code, 'OUT_OF_RANGE', 'an offset of more than 31 bits is not cut off');
});

test('F-5, F-14: overlapping unaligned writes at once come to the same everywhere, after a failover too', async () => {
  const at = BASE + 64 * BLOCK;
  const burst = async (): Promise<void> => {
    const writes = Array.from({ length: 64 }, (_, i) => {
      const from = random.below(8 * KiB);
      return matrix.volume.write(at + from, new Uint8Array(1 + random.below(5000)).fill(i + 1));
    });
    await Promise.all(writes);
  };
  await burst();
  const before = await atAll.read(at, 13 * KiB + 200);
  const killed = await matrix.primary();
  await matrix.kill(killed);
  await holds(matrix.volume, at, before, 'the order differs at the other one');
  await burst();
  await back(killed);
  await atAll.read(at, 13 * KiB + 200);
});

test('F-6, F-8: a target that crashes when all is there; no write hangs, none is lost', async () => {
  const primary = await matrix.primary();
  await matrix.kill(other(primary));
  await matrix.load.more(40);
  const bytes = random.bytes(3 * BLOCK);
  await matrix.volume.write(BASE + 1, bytes);
  await matrix.startToCrash(other(primary), 'target:finish');
  await matrix.load.more(40);
  // Written while it is brought in for good: in one phase or the other.
  const returned = matrix.cluster.restart(other(primary));
  for (let i = 0; i < 30; i++) await matrix.volume.write(BASE + 1 + i * 100, bytes.subarray(0, 100));
  await returned;
  await matrix.untilSafe();
  await holds(atAll, BASE + 1 + 29 * 100, bytes.subarray(0, 100), 'the last one written meanwhile');
  await matrix.kill(primary);
  await matrix.untilPrimary(other(primary));
  await matrix.load.check();
  await back(primary);
});

test('F-9, F-13: what fails to take a write is out of the register before the answer', async () => {
  const primary = await matrix.primary();
  const epoch = (await matrix.look()).volumes[0]!.epoch;
  await matrix.arm(other(primary), 'follow:received');
  await matrix.volume.write(BASE, Buffer.from('alone'));
  await matrix.crashed(other(primary), 'follow:received');
  const { volumes } = await matrix.look();
  assert.is(volumes[0]!.primary, primary);
  assert.is(volumes[0]!.epoch, epoch, 'nobody else became primary');
  // Alone it has less than everything: it must not serve, whatever it was before.
  await matrix.kill(primary);
  await matrix.cluster.restart(other(primary));
  await refusesAlone(matrix, other(primary));
  await back(primary);
  await holds(atAll, BASE, Buffer.from('alone'), 'at both');
});

test('F-10: both are killed at once: what was acknowledged is there', async () => {
  const bytes = random.bytes(5000);
  await matrix.volume.write(BASE + 7, bytes);
  await Promise.all(NODES.map((name) => matrix.kill(name)));
  for (const name of NODES) await matrix.cluster.restart(name);
  await holds(matrix.volume, BASE + 7, bytes, 'lost');
  await matrix.untilSafe();
  await holds(atAll, BASE + 7, bytes, 'lost at one of them');
});

test('F-11: the journal does not grow, and what is brought in is what differs', async () => {
  const journal = (name: string): number =>
    statSync(join(matrix.cluster.slot(name).dir, 'volumes', VOLUME, 'journal')).size;
  const before = NODES.map(journal);
  const primary = await matrix.primary();
  await matrix.kill(other(primary));
  // The same blocks again and again are one difference.
  for (let i = 0; i < 50; i++) await matrix.volume.write(BASE, random.bytes(64 * KiB));
  const view = await matrix.until(
    ({ volumes }) => volumes[0]!.members.some(({ dirtyBytes }) => (dirtyBytes ?? 0) > 0),
    'what differs to be known',
  );
  const dirty = view.volumes[0]!.members.find(({ node }) => node !== primary)!.dirtyBytes!;
  assert.ok(dirty < 4 * MiB, `${dirty} bytes differ, of ${50 * 64 * KiB} written to one place`);
  await back(other(primary));
  assert.equal(NODES.map(journal), before);
});

test('F-12, F-15: a primary whose clock stood still is no primary; what a node does not expect does not end it', async () => {
  const old = await matrix.primary();
  const { child } = matrix.cluster.slot(old).running!;
  await stopProcess(child);
  await matrix.untilPrimary(other(old));
  await matrix.volume.write(BASE, Buffer.from('newer'));
  // It wakes with records in its sockets, and commits of a tenure that is over.
  child.kill('SIGCONT');
  await matrix.untilSafe();
  assert.is(child.exitCode, null, 'it has ended');
  await holds(atAll, BASE, Buffer.from('newer'), 'at both');
  const name = await crashPrimary('write:acknowledged');
  await back(name);
});

test('in the end both have the same', async () => {
  await matrix.load.check();
  await matrix.finish();
});

test.run();

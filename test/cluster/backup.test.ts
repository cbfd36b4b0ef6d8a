/** Backup and restore of replicated volumes, while a client goes on writing and primaries are killed. */
// deadline: 240 s
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Volume, connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { MAIN } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite('backup of a cluster');
const BLOCK = 4096;
const MiB = 1024 * 1024;
const SIZE = 16 * MiB;

async function sha256(url: string): Promise<string> {
  const volume = await connect(url);
  const bytes = await volume.read(0, SIZE);
  await volume.close();
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * Writes 0, 1, 2 ... one after the other, the n-th into place n modulo PLACES, places far from each other: at each moment
 * the volume holds a run of numbers without a gap, and what is of several moments hardly ever does.
 */
class Counter {
  static readonly PLACES = 61;
  written = 0;
  private over = false;
  private readonly work: Promise<void>;

  constructor(volume: Volume) {
    this.work = (async () => {
      const block = Buffer.alloc(BLOCK);
      while (!this.over) {
        block.writeUInt32LE(this.written + 1, 0);
        await volume.write(Counter.offset(this.written % Counter.PLACES), Buffer.from(block));
        this.written++;
      }
    })();
    this.work.catch(() => {});
  }

  /** Places that follow each other are half a volume apart. */
  static offset(place: number): number {
    return ((place * 31) % Counter.PLACES) * 256 * 1024;
  }

  async stop(): Promise<void> {
    this.over = true;
    await this.work;
  }

  /** @returns the newest number, if what the volume holds is of one moment; else null */
  static async moment(url: string): Promise<number | null> {
    const volume = await connect(url);
    const numbers: number[] = [];
    for (let place = 0; place < Counter.PLACES; place++) {
      const at = Buffer.from(await volume.read(Counter.offset(place), 4));
      numbers.push(at.readUInt32LE(0));
    }
    await volume.close();
    const newest = Math.max(...numbers);
    for (let n = newest; n > newest - Counter.PLACES; n--) if (numbers[(n - 1) % Counter.PLACES] !== n) return null;
    return newest;
  }
}

/** A command of which one end is in our hands. */
function command(...args: string[]): {
  child: ReturnType<typeof spawn>;
  exited: Promise<{ code: number | null; stderr: string }>;
} {
  const child = spawn(process.execPath, [MAIN, 'volume', ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  child.stdin.on('error', () => {});
  const exited = new Promise<{ code: number | null; stderr: string }>((resolve) =>
    child.once('close', (code) => resolve({ code, stderr })),
  );
  return { child, exited };
}

const withCluster = async (work: (cluster: TestCluster) => Promise<void>): Promise<void> => {
  const cluster = await TestCluster.start(['a', 'b']);
  try {
    await work(cluster);
  } finally {
    await cluster.stop();
  }
};

test('full and two incrementals while a client writes; the primary is killed meanwhile, each time', () =>
  withCluster(async (cluster) => {
    await cluster.create('v', '16MiB', 2, '--allow-sparse');
    await cluster.create('copy', '16MiB', 2, '--allow-sparse');
    await cluster.untilSafe();
    const [url, copy] = [cluster.url('v'), cluster.url('copy')];
    const file = (name: string): string => join(cluster.dir, name);
    const volume = await connect(url);
    await volume.write(0, randomBytes(SIZE - MiB));
    const counter = new Counter(volume);
    await until(() => counter.written > 100, 'the counter to have gone round');

    // Killed in the midst of the first pass: nobody takes what it writes until then.
    const { child, exited } = command('export', url, '-', '--mark', 'monday', '--hold', '10000');
    const parts: Buffer[] = [];
    await new Promise<void>((resolve) =>
      child.stdout!.once('data', (bytes: Buffer) => {
        child.stdout!.pause();
        parts.push(bytes);
        resolve();
      }),
    );
    const primary = await cluster.primary('v');
    await cluster.kill(primary);
    child.stdout!.on('data', (bytes: Buffer) => parts.push(bytes));
    child.stdout!.resume();
    const full = await exited;
    assert.is(full.code, 0, full.stderr);
    assert.match(full.stderr, /([2-9]|\d\d) passes.*\nconsistent/);
    writeFileSync(file('full'), Buffer.concat(parts));
    const atFull = counter.written;
    await cluster.restart(primary);

    await until(() => counter.written > atFull + 100, 'the counter to go on');
    await cluster.must(
      'volume',
      'export',
      url,
      file('one'),
      '--since',
      'monday',
      '--mark',
      'tuesday',
      '--hold',
      '10000',
    );
    await volume.zero(10 * MiB, MiB);
    await cluster.untilSafe();

    // As they are on their way into another volume, its primary is killed.
    const input = Buffer.concat(parts);
    const restore = command('import', copy, '-', '--trust-stream');
    restore.child.stdin!.write(input.subarray(0, input.length / 2));
    const target = await connect(copy);
    const begun = async (): Promise<boolean> => (await target.extents(0, SIZE, { limit: 1 }))[0]!.kind === 'data';
    while (!(await begun())) await new Promise((resolve) => setTimeout(resolve, 5));
    const second = await cluster.primary('copy');
    await cluster.kill(second);
    restore.child.stdin!.end(input.subarray(input.length / 2));
    const restored = await restore.exited;
    assert.is(restored.code, 0, restored.stderr);
    const moment = await Counter.moment(copy);
    assert.ok(moment !== null, 'the full backup is of no single moment');
    assert.ok(moment! <= atFull + 1, `${moment} of ${atFull}`);
    await cluster.restart(second);
    await cluster.must('volume', 'import', copy, file('full'), file('one'), '--overwrite');
    const later = await Counter.moment(copy);
    assert.ok(later !== null && later > moment!, `${later} after ${moment}`);

    await counter.stop();
    await cluster.must('volume', 'export', url, file('two'), '--since', 'tuesday');
    assert.ok(readFileSync(file('two')).length < 2 * MiB, 'the incremental file holds what changed');
    // Into a volume that is made for it.
    const args = ['--create', '--replicas', '1', '--allow-sparse'];
    await cluster.must('volume', 'import', 'made', file('full'), file('one'), file('two'), ...args);
    assert.is(await sha256(cluster.url('made')), await sha256(url));
    const names = (await volume.marks()).map(({ name }) => name);
    assert.equal(names, ['monday', 'tuesday']);
    await Promise.all([target.close(), volume.close()]);
  }));

test('after a promotion by force a mark vouches for nothing; a key-value volume is refused', () =>
  withCluster(async (cluster) => {
    await cluster.create('v', '8MiB', 2, '--allow-sparse');
    await cluster.untilSafe();
    await cluster.create('keys', '8MiB', 1, '--allow-sparse', '--kind', 'kv');
    await cluster.untilServed('keys');
    for (const args of [
      ['export', cluster.url('keys'), join(cluster.dir, 'k')],
      ['import', cluster.url('keys'), join(cluster.dir, 'full')],
    ]) {
      if (args[0] === 'import') await cluster.must('volume', 'export', cluster.url('v'), args[2]!, '--mark', 'm');
      const { code, stderr } = await cluster.cli('volume', ...args);
      assert.is(code, 1);
      assert.match(stderr, /key-value/);
    }
    const volume = await connect(cluster.url('v'));
    const primary = await cluster.primary('v');
    const rest = primary === 'a' ? 'b' : 'a';
    await cluster.kill(rest);
    // Acknowledged, in a backup, and lost.
    await volume.write(MiB, randomBytes(BLOCK));
    const lost = join(cluster.dir, 'lost');
    await cluster.must('volume', 'export', cluster.url('v'), lost, '--since', 'm');
    await cluster.kill(primary);
    await cluster.restart(rest);
    await cluster.must('volume', 'promote', 'v', '--node', rest, '--force', '--yes');
    await volume.write(0, randomBytes(BLOCK));
    const after = join(cluster.dir, 'after');
    await cluster.must('volume', 'export', cluster.url('v'), after, '--since', 'm');
    await cluster.create('copy', '8MiB', 1, '--allow-sparse', '--node', rest);
    await cluster.untilServed('copy');
    await cluster.must('volume', 'import', cluster.url('copy'), join(cluster.dir, 'full'), lost, after);
    const copy = await connect(cluster.url('copy'));
    assert.ok(Buffer.from(await copy.read(0, 8 * MiB)).equals(await volume.read(0, 8 * MiB)));
    await Promise.all([copy.close(), volume.close()]);
  }));

test.run();

/** Backup files: what is refused of them, what they hold, pipes, interrupts. Real servers and commands. */
// deadline: 240 s
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { checkChain } from '../../src/cli/backup-chain.ts';
import { type BackupMark, HEAD_BYTES, KINDS, decodeHead, encodeHead } from '../../src/cli/backup-format.ts';
import { BackupInput } from '../../src/cli/backup-input.ts';
import { type Verified, verifyBackup } from '../../src/cli/backup-reader.ts';
import { BackupWriter } from '../../src/cli/backup-writer.ts';
import { ReadBack } from '../../src/cli/import-volume.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { Random } from '../support/random.ts';
import { MAIN, ServerProcess, holdfast, temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const BLOCK = 4096;
const MiB = 1024 * 1024;
const dir = temporaryFolder();
const random = new Random(3);
const at = (position: number): { epoch: number; seq: number } => ({ epoch: 1, seq: position });

// --- the bytes of a file ----------------------------------------------------------------------------------------------------

const files = suite('backup files');

/** A small file of two passes. */
async function written(name: string): Promise<string> {
  const path = join(dir, name);
  const writer = await BackupWriter.open(path);
  await writer.header({
    format: 1,
    volumeId: 'ab'.repeat(16),
    volume: 'v',
    sizeBytes: 64 * BLOCK,
    blockBytes: BLOCK,
    since: null,
    marks: [{ name: 'm', position: at(5) }],
    startedAt: 'then',
    writtenBy: 'a test',
  });
  await writer.pass(true);
  await writer.blocks(2, Buffer.concat([random.bytes(3 * BLOCK), Buffer.alloc(2 * BLOCK), random.bytes(BLOCK)]));
  await writer.blocks(20, Buffer.from(random.bytes(BLOCK)));
  await writer.pass(false);
  await writer.blocks(3, Buffer.alloc(2 * BLOCK));
  await writer.blocks(20, Buffer.from(random.bytes(BLOCK)));
  await writer.finish({ consistent: true, position: at(9), passes: 2, endedAt: 'now' });
  return path;
}

async function* piecesOf(bytes: Buffer, most: number): AsyncGenerator<Buffer> {
  for (let from = 0; from < bytes.length; from += most) yield bytes.subarray(from, from + most);
}

/** @returns why the bytes are refused; null if they are not */
async function refusalOf(bytes: Buffer, pieceBytes = 1000): Promise<string | null> {
  return verifyBackup(piecesOf(bytes, pieceBytes), 'f').then(
    () => null,
    (error: Error) => error.message,
  );
}

/** Where the records begin. */
function recordsOf(bytes: Buffer): number[] {
  const starts: number[] = [];
  for (let offset = 0; offset < bytes.length;) {
    starts.push(offset);
    const head = decodeHead(bytes.subarray(offset, offset + HEAD_BYTES));
    assert.type(head, 'object');
    offset += HEAD_BYTES + (head as { payloadBytes: number }).payloadBytes;
  }
  return starts;
}

files('a whole file is what was written, in pieces of any size', async () => {
  const bytes = readFileSync(await written('whole'));
  for (const pieceBytes of [1, 39, 40, 41, 4096, bytes.length]) assert.is(await refusalOf(bytes, pieceBytes), null);
  const { header, trailer, sections, fileBytes } = await verifyBackup(piecesOf(bytes, 5000), 'f');
  assert.equal([header.volume, header.marks, fileBytes], ['v', [{ name: 'm', position: at(5) }], bytes.length]);
  // Of the first pass of a full file zeros are left out.
  assert.equal([trailer.dataBlocks, trailer.zeroBlocks, trailer.passes, sections.length], [6, 2, 2, 2]);
  assert.is(statSync(join(dir, 'whole')).mode & 0o777, 0o600);
});

files('cut off anywhere, one bit turned anywhere', async () => {
  const bytes = readFileSync(await written('cut'));
  for (const start of [...recordsOf(bytes), bytes.length - 1]) {
    for (const length of [start, start + 1, start + HEAD_BYTES]) {
      if (length >= bytes.length) continue;
      assert.match((await refusalOf(bytes.subarray(0, length))) ?? 'taken', /empty|cut off/, `cut at ${length}`);
    }
  }
  for (let i = 0; i < 300; i++) {
    const flipped = Buffer.from(bytes);
    const where = i < 2 * HEAD_BYTES ? i : random.below(bytes.length);
    flipped[where]! ^= 1 << random.below(8);
    assert.ok((await refusalOf(flipped)) !== null, `byte ${where}`);
  }
  assert.match((await refusalOf(Buffer.concat([bytes, Buffer.alloc(1)]))) ?? 'taken', /cut off/);
  assert.match((await refusalOf(Buffer.concat([bytes, bytes]))) ?? 'taken', /record 0 stands in the place/);
});

files('records in another order, left out, of another file, with heads that match', async () => {
  const bytes = readFileSync(await written('order'));
  const other = readFileSync(await written('other'));
  const starts = recordsOf(bytes);
  const parts = starts.map((start, i) => bytes.subarray(start, starts[i + 1] ?? bytes.length));
  const swapped = [...parts];
  [swapped[2], swapped[3]] = [swapped[3]!, swapped[2]!];
  assert.match((await refusalOf(Buffer.concat(swapped))) ?? 'taken', /stands in the place of record 2/);
  const renumber = (part: Buffer, index: number): Buffer => {
    const head = decodeHead(part.subarray(0, HEAD_BYTES));
    if (typeof head === 'string') throw new Error(head);
    return Buffer.concat([encodeHead({ ...head, index }), part.subarray(HEAD_BYTES)]);
  };
  assert.match((await refusalOf(Buffer.concat(swapped.map(renumber)))) ?? 'taken', /comes behind/);
  const without = parts.filter((_, i) => i !== 2);
  assert.match((await refusalOf(Buffer.concat(without.map(renumber)))) ?? 'taken', /SHA-256/);
  // A sound record of another file in the same place.
  const otherStarts = recordsOf(other);
  const foreign = [...parts];
  foreign[2] = other.subarray(otherStarts[2], otherStarts[3]);
  assert.match((await refusalOf(Buffer.concat(foreign))) ?? 'taken', /SHA-256/);
  const outside = { kind: KINDS.ZEROS, index: 2, firstBlock: 63, blockCount: 2, payloadBytes: 0, payloadCrc: 0 };
  const long = Buffer.concat([...parts.slice(0, 2), encodeHead(outside)]);
  assert.match((await refusalOf(long)) ?? 'taken', /block 64 of a volume of 64/);
  assert.match(
    (await refusalOf(Buffer.from('{"format":"holdfast-kv-1"}\n'.repeat(9)))) ?? 'taken',
    /no backup of a volume/,
  );
});

files('reading back finds what is not as the newest pass says, and what ought to be zeros', async () => {
  const input = await BackupInput.open(await written('back'));
  const file = await verifyBackup(input.read(), 'back');
  const content = new Uint8Array(64 * BLOCK);
  const bytes = readFileSync(join(dir, 'back'));
  for (const start of recordsOf(bytes)) {
    const head = decodeHead(bytes.subarray(start, start + HEAD_BYTES)) as Exclude<
      ReturnType<typeof decodeHead>,
      string
    >;
    const from = head.firstBlock * BLOCK;
    if (head.kind === KINDS.ZEROS) content.fill(0, from, from + head.blockCount * BLOCK);
    if (head.kind === KINDS.DATA)
      content.set(bytes.subarray(start + HEAD_BYTES, start + HEAD_BYTES + head.payloadBytes), from);
  }
  const compare = async (change: (device: MemoryDevice) => Promise<void>): Promise<string> => {
    const device = new MemoryDevice(content.length);
    await device.write(0, content);
    await change(device);
    const volume = Object.assign(device, { name: 'm' });
    const back = new ReadBack(volume, new AbortController().signal);
    return back
      .compare([{ file, input }], () => {})
      .then(
        () => 'same',
        (error: Error) => /offset (\d+)/.exec(error.message)?.[1] ?? String(error.stack),
      );
  };
  assert.is(await compare(async () => {}), 'same');
  for (const block of [2, 3, 7, 20, 0, 40, 63]) {
    const changed = await compare((device) =>
      device.write(block * BLOCK + 9, Buffer.of(0xff ^ content[block * BLOCK + 9]!)),
    );
    assert.is(changed, String(block * BLOCK));
  }
  await input.close();
});

files('what is a chain', () => {
  const file = (
    name: string,
    since: [string, number] | null,
    marks: Array<[string, number]>,
    end: number,
  ): Verified => {
    const mark = ([markName, position]: [string, number]): BackupMark => ({ name: markName, position: at(position) });
    const header = { volumeId: 'v', sizeBytes: BLOCK, since: since && mark(since), marks: marks.map(mark) };
    return { file: name, header, trailer: { position: at(end) } } as unknown as Verified;
  };
  const full = file('full', null, [['m1', 10]], 12);
  const one = file('one', ['m1', 10], [['m1', 10], ['m2', 20]], 22); // prettier-ignore
  const two = file('two', ['m2', 20], [['m2', 20]], 30);
  const since1 = file('since1', ['m1', 10], [], 40);
  const refusal = (...chain: Verified[]): string => {
    try {
      checkChain(chain);
    } catch (error) {
      return (error as Error).message;
    }
    return 'taken';
  };
  // What changed since an older mark contains what changed since a newer one.
  for (const good of [[full], [full, one], [full, one, two], [full, since1], [full, one, two, since1]]) {
    assert.is(refusal(...good), 'taken');
  }
  const other = { ...one, header: { ...one.header, volumeId: 'w' } };
  const smaller = { ...one, header: { ...one.header, sizeBytes: 0 } };
  for (const [expected, ...bad] of [
    [/one: .*stands first/, one, two],
    [/two: .*one is missing between them/, full, two],
    [/two: .*one is missing between them/, full, two, one],
    [/full: .*stands behind another/, full, full],
    [/one: it is older than since1/, full, since1, one],
    [/another volume/, full, other],
    [/its volume has 0 bytes/, full, smaller],
    // A mark of that name that was set anew.
    [/at 1.11, which no earlier file knows/, full, file('anew', ['m1', 11], [], 50)],
  ] as Array<[RegExp, ...Verified[]]>) {
    assert.match(refusal(...bad), expected);
  }
  assert.throws(() => checkChain([full], two), /one is missing between them/);
});

files.run();

// --- commands ---------------------------------------------------------------------------------------------------------------

interface Context {
  server: ServerProcess;
  volume: Volume;
  target: ServerProcess;
}

const commands = suite<Context>('volume export and import');
const SIZE = 32 * MiB;
const read = async (url: string): Promise<string> => {
  const volume = await connect(url);
  const sha256 = createHash('sha256')
    .update(await volume.read(0, SIZE))
    .digest('hex');
  await volume.close();
  return sha256;
};
const path = (name: string): string => join(dir, name);

async function must(...args: string[]): Promise<{ stdout: Buffer; stderr: string }> {
  const { code, stdout, stderr } = await holdfast(['volume', ...args]);
  assert.is(code, 0, `${args.join(' ')}: ${stderr}`);
  return { stdout, stderr };
}

async function refused(expected: RegExp, ...args: string[]): Promise<void> {
  const { code, stderr } = await holdfast(['volume', ...args]);
  assert.is(code, 1, `${args.join(' ')}: ${stderr}`);
  assert.match(stderr, expected, args.join(' '));
}

commands.before(async (context) => {
  const start = (name: string): Promise<ServerProcess> =>
    ServerProcess.start(path(name), ['--size', '32MiB', '--allow-sparse']);
  [context.server, context.target] = await Promise.all([start('source'), start('target')]);
  context.volume = await connect(context.server.url);
  await context.volume.write(5 * MiB, random.bytes(MiB));
  await context.volume.write(30 * MiB, random.bytes(BLOCK));
});

commands.after(async ({ server, target, volume }) => {
  await volume.close();
  await Promise.all([server.kill('SIGTERM'), target.kill('SIGTERM')]);
});

commands('a chain; what is not one is refused with nothing written', async ({ server, target, volume }) => {
  const { url } = server;
  const [full, one, two] = ['full', 'one', 'two'].map(path) as [string, string, string];
  await must('export', url, full, '--mark', 'monday');
  assert.ok(statSync(full).size < MiB + 8 * BLOCK, 'holes are not in the file');
  await volume.write(7 * MiB + 5, random.bytes(10_000));
  await volume.trim(5 * MiB, 512 * 1024);
  await must('export', url, one, '--since', 'monday', '--mark', 'tuesday');
  await volume.write(5 * MiB, random.bytes(BLOCK));
  await must('export', url, two, '--since', 'tuesday', '--json');
  const info = JSON.parse((await must('backup-info', full, one, two, '--json')).stdout.toString()) as {
    chain: Array<Verified['header'] & Verified['trailer'] & { kind: string; verified: boolean }>;
  };
  assert.equal(
    info.chain.map(({ kind, verified, consistent, passes }) => [kind, verified, consistent, passes]),
    [
      ['full', true, true, 1],
      ['incremental', true, true, 1],
      ['incremental', true, true, 1],
    ],
  );
  assert.is(info.chain[1]!.zeroBlocks, 128, 'what was trimmed is told');

  const flipped = readFileSync(one);
  flipped[Math.floor(flipped.length / 2)]! ^= 4;
  writeFileSync(path('flipped'), flipped);
  writeFileSync(path('short'), readFileSync(two).subarray(0, -1));
  for (const [expected, ...chain] of [
    [/flipped: it is damaged/, full, path('flipped'), two],
    [/short: it is cut off/, full, one, path('short')],
    [/two: .*one is missing between them; nothing was written/, full, two],
  ] as Array<[RegExp, ...string[]]>) {
    await refused(expected, 'import', target.url, ...chain);
  }
  const empty = await connect(target.url);
  assert.equal(await empty.extents(0, SIZE), [{ offsetBytes: 0, lengthBytes: SIZE, kind: 'hole' }]);

  await must('import', target.url, full, one, two);
  assert.is(await read(target.url), await read(url));
  // All that was there goes, also where the files say nothing.
  await empty.write(15 * MiB, random.bytes(BLOCK));
  await refused(/not empty; nothing was written/, 'import', target.url, full);
  await must('import', target.url, full, one, two, '--overwrite');
  assert.is(await read(target.url), await read(url));
  await empty.close();
});

commands('pipes; a stream that is not trusted is verified first', async ({ server, target }) => {
  const { stdout } = await must('export', server.url, '-');
  const damaged = Buffer.from(stdout);
  damaged[stdout.length - 400]! ^= 1;
  const before = await read(target.url);
  const piped = (input: Buffer, ...args: string[]): Promise<{ code: number; stderr: string }> =>
    holdfast(['volume', 'import', target.url, ...args], { input });
  const bad = await piped(damaged, '-', '--overwrite');
  assert.match(bad.stderr, /stdin: it is damaged/);
  assert.is(await read(target.url), before);
  for (const how of [[], ['--trust-stream']]) {
    const { code, stderr } = await piped(stdout, '-', '--overwrite', ...how);
    assert.is(code, 0, stderr);
    assert.is(await read(target.url), await read(server.url));
  }
  const trusted = await piped(damaged, '-', '--overwrite', '--trust-stream');
  assert.is(trusted.code, 1);
  assert.match(trusted.stderr, /holds a PART of the backup: .*stdin: it is damaged/);
});

commands('other sizes: refused, or zeros behind it', async ({ server }) => {
  const larger = await ServerProcess.start(path('larger'), ['--size', '48MiB', '--allow-sparse']);
  const smaller = await ServerProcess.start(path('smaller'), ['--size', '16MiB', '--allow-sparse']);
  await must('export', server.url, path('sized'));
  await refused(/it has 16777216 bytes.*nothing was written/, 'import', smaller.url, path('sized'), '--larger');
  await refused(/give --larger/, 'import', larger.url, path('sized'));
  await must('import', larger.url, path('sized'), '--larger');
  assert.is(await read(larger.url), await read(server.url));
  await Promise.all([larger.kill('SIGTERM'), smaller.kill('SIGTERM')]);
});

commands('what may not be done to files and marks', async ({ server, volume }) => {
  const { url } = server;
  await refused(/EEXIST.*full/, 'export', url, path('full'));
  await refused(/no mark "never"; it has monday, tuesday/, 'export', url, path('x'), '--since', 'never');
  await refused(/EEXIST/, 'export', url, path('x'), '--mark', 'monday');
  assert.equal(
    (await volume.marks()).map(({ name }) => name),
    ['monday', 'tuesday'],
  );
  assert.equal(
    readdirSync(dir).filter((name) => name.startsWith('x')),
    [],
  );
});

/**
 * An export to stdout in the midst of its first pass: what it has read by now is taken, the rest waits.
 * @returns what goes on reading
 */
async function midway(...args: string[]): Promise<{ child: ChildProcess; rest: () => Promise<Exported> }> {
  const child = spawn(process.execPath, [MAIN, 'volume', 'export', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const parts: Buffer[] = [];
  let stderr = '';
  child.stderr.on('data', (bytes: Buffer) => (stderr += bytes.toString()));
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  await new Promise<void>((resolve) =>
    child.stdout.once('data', (bytes: Buffer) => {
      child.stdout.pause();
      parts.push(bytes);
      resolve();
    }),
  );
  const rest = async (): Promise<Exported> => {
    child.stdout.on('data', (bytes: Buffer) => parts.push(bytes));
    child.stdout.resume();
    return { code: await exited, stdout: Buffer.concat(parts), stderr };
  };
  return { child, rest };
}

interface Exported {
  code: number | null;
  stdout: Buffer;
  stderr: string;
}

const marksOf = async (volume: Volume): Promise<string[]> => (await volume.marks()).map(({ name }) => name);

commands('written to meanwhile: nothing is called consistent that is not', async ({ server, target, volume }) => {
  const { url } = server;
  await volume.write(8 * MiB, randomBytes(20 * MiB));
  const disturbed = async (...args: string[]): Promise<Exported> => {
    const { rest } = await midway(url, '-', ...args);
    // One block that was copied by now, and one that was not.
    await volume.write(8 * MiB, random.bytes(BLOCK));
    await volume.write(27 * MiB, random.bytes(BLOCK));
    return rest();
  };
  const failed = await disturbed('--passes', '1');
  assert.is(failed.code, 1);
  assert.match(failed.stderr, /written to in each of 1 passes.*nothing is left/);
  writeFileSync(path('failed'), failed.stdout);
  await refused(/cut off/, 'import', target.url, path('failed'), '--fuzzy');
  assert.equal(await marksOf(volume), ['monday', 'tuesday']);
  const fuzzy = await disturbed('--passes', '1', '--fuzzy', '--mark', 'wednesday');
  assert.is(fuzzy.code, 0);
  assert.match(fuzzy.stderr, /FUZZY/);
  assert.equal(await marksOf(volume), ['monday', 'tuesday', 'wednesday']);
  writeFileSync(path('fuzzy'), fuzzy.stdout);
  await refused(/fuzzy: its blocks are of different moments; nothing was written/, 'import', target.url, path('fuzzy'));
  await must('import', target.url, path('fuzzy'), '--fuzzy', '--overwrite');
  assert.is.not(await read(target.url), await read(url), 'this one was not disturbed');
  // What was of another moment was written behind the mark.
  await must('export', url, path('sound'), '--since', 'wednesday');
  await must('import', target.url, path('fuzzy'), path('sound'), '--overwrite');
  assert.is(await read(target.url), await read(url));
  // A second pass finds it standing still.
  const second = await disturbed('--passes', '2');
  assert.match(second.stderr, /2 passes\nconsistent/);
  writeFileSync(path('second'), second.stdout);
  await must('import', target.url, path('second'), '--overwrite');
  assert.is(await read(target.url), await read(url));
});

commands('hooks and holds; an interrupt leaves nothing', async ({ server, target, volume }) => {
  const { url } = server;
  const before = await marksOf(volume);
  const hooks = (name: string, end: string): string[] => {
    const again = `touch ${path(`${name}-again`)}`;
    return ['--pause-hook', `touch ${path(name)}; ${end}`, '--resume-hook', again, '--mark', name];
  };
  const disturbed = async (...args: string[]): ReturnType<typeof midway> => {
    const export_ = await midway(url, '-', ...args);
    await volume.write(8 * MiB, random.bytes(BLOCK));
    return export_;
  };
  const failed = await (await disturbed(...hooks('failed', 'exit 3'))).rest();
  assert.match(failed.stderr, /--pause-hook.*ended with 3/);
  assert.ok(existsSync(path('failed-again')));
  const interrupted = await disturbed(...hooks('paused', 'exec sleep 100'));
  const ended = interrupted.rest();
  await until(() => existsSync(path('paused')), 'the hook to run');
  interrupted.child.kill('SIGINT');
  assert.is((await ended).code, 1);
  assert.match((await ended).stderr, /ECANCELED/);
  assert.ok(existsSync(path('paused-again')));
  assert.equal(await marksOf(volume), before);

  const held = await (await disturbed('--hold', '10000')).rest();
  assert.match(held.stderr, /2 passes, writers waited \d+ ms\nconsistent/);
  writeFileSync(path('held'), held.stdout);
  await must('import', target.url, path('held'), '--overwrite');
  assert.is(await read(target.url), await read(url));
  // They were let go: else this would take ten seconds.
  await volume.write(0, random.bytes(BLOCK), { deadlineMs: 5000 });

  const child = spawn(process.execPath, [MAIN, 'volume', 'export', url, path('z'), '--mark', 'z']);
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve));
  await until(() => existsSync(path('z.partial')), 'the file to be begun');
  child.kill('SIGINT');
  assert.is(await exited, 1);
  assert.equal([existsSync(path('z')), existsSync(path('z.partial'))], [false, false]);
  assert.equal(await marksOf(volume), before);
});

commands.run();

/**
 * `holdfast kv shell`: the forms of the CS 739 course's tools, in the order of the commands, over a failover, and with two
 * shells on the same keys. `holdfast kv bench`: what it counts, what it touches, and that nothing of it stays.
 */
// deadline: 240 s
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connectKv } from '../../src/client/index.ts';
import { KvCluster } from '../support/kv-cluster.ts';
import { MAIN, holdfast } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite<{ kv: KvCluster }>('holdfast kv shell and bench');

test.before(async (context) => {
  context.kv = await KvCluster.start('32MiB');
});

test.after(async ({ kv }) => {
  await kv.stop();
});

/** A session that is driven as the course's tools do it: a command, then its answer. */
class Session {
  private readonly child: ChildProcess;
  private readonly lines: string[] = [];
  private readonly waiting: Array<(line: string) => void> = [];
  readonly code: Promise<number | null>;

  constructor(url: string, ...flags: string[]) {
    this.child = spawn(process.execPath, [MAIN, 'kv', 'shell', url, ...flags], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.code = new Promise((resolve) => this.child.once('close', resolve));
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      const next = this.waiting.shift();
      if (next === undefined) this.lines.push(line);
      else next(line);
    });
  }

  tell(line: string): void {
    this.child.stdin!.write(`${line}\n`);
  }

  line(): Promise<string> {
    const line = this.lines.shift();
    return line === undefined ? new Promise((resolve) => this.waiting.push(resolve)) : Promise.resolve(line);
  }

  async ask(command: string): Promise<string> {
    this.tell(command);
    return this.line();
  }

  /** @returns the entries */
  async scan(first: string, last: string): Promise<string[]> {
    assert.is(await this.ask(`SCAN ${first} ${last}`), `SCAN ${first} ${last} BEGIN`);
    const entries: string[] = [];
    for (let line = await this.line(); line !== 'SCAN END'; line = await this.line()) entries.push(line);
    return entries;
  }

  end(): void {
    this.child.stdin!.end();
  }

  kill(): void {
    this.child.kill('SIGKILL');
  }
}

async function script(
  url: string,
  text: string | Uint8Array,
): Promise<{ code: number; lines: string[]; stderr: string }> {
  const { code, stdout, stderr } = await holdfast(['kv', 'shell', url], { input: Buffer.from(text as string) });
  assert.is(stdout.at(-1), 10, 'the last line has no end');
  return { code, lines: stdout.toString().split('\n').slice(0, -1), stderr };
}

const SCRIPT = [
  ['GET key7', ['GET key7 null']],
  ['PUT key7 one', ['PUT key7 not_found']],
  ['PUT key7 Two', ['PUT key7 found']],
  ['  GET \t  key7  ', ['GET key7 Two']],
  ['', []],
  ['   ', []],
  ['SWAP key7 three', ['SWAP key7 Two']],
  ['SWAP key8 four', ['SWAP key8 null']],
  ['PUT key70 five', ['PUT key70 not_found']],
  ['GET key7', ['GET key7 three']],
  // Both ends are included.
  ['SCAN key7 key8', ['SCAN key7 key8 BEGIN', '  key7 three', '  key70 five', '  key8 four', 'SCAN END']],
  ['SCAN key7 key7', ['SCAN key7 key7 BEGIN', '  key7 three', 'SCAN END']],
  ['SCAN key8 key7', ['SCAN key8 key7 BEGIN', 'SCAN END']],
  ['SCAN key71 key79', ['SCAN key71 key79 BEGIN', 'SCAN END']],
  ['DELETE key7', ['DELETE key7 found']],
  ['DELETE key7', ['DELETE key7 not_found']],
  ['GET key7', ['GET key7 null']],
] as const;

test('a session, line for line', async ({ kv }) => {
  const { code, lines, stderr } = await script(kv.url(), [...SCRIPT.map(([command]) => command), 'STOP\n'].join('\n'));
  assert.equal(lines, [...SCRIPT.flatMap(([, answers]) => answers), 'STOP']);
  assert.equal([code, stderr], [0, '']);
});

test('a line that is no command changes nothing and is told in one line; the end of the input is STOP', async ({
  kv,
}) => {
  const wrong = [
    'put w 1',
    'PUT w',
    'PUT w 1 2',
    'GET',
    'GET w w',
    'SCAN w',
    'DELETE',
    'help',
    'STOP now',
    'constructor',
  ];
  const long = `PUT w ${'x'.repeat(1100 * 1024)}`;
  const large = `PUT w ${'x'.repeat(200_000)}`;
  const { code, lines } = await script(kv.url(), [...wrong, long, large, 'GET w', 'PUT w last'].join('\n'));
  const errors = lines.slice(0, wrong.length + 2);
  for (const [i, line] of errors.entries()) assert.match(line, /^ERROR /, `line ${i}`);
  assert.match(errors[1]!, /PUT takes a key and a value, not 1 words/);
  assert.match(errors.at(-2)!, /more than 1048576 bytes/);
  assert.match(errors.at(-1)!, /196608/);
  // The last line has no newline, and counts.
  assert.equal(lines.slice(errors.length), ['GET w null', 'PUT w not_found', 'STOP']);
  assert.is(code, 1);
  assert.equal(await script(kv.url(), ''), { code: 0, lines: ['STOP'], stderr: '' });
  assert.equal((await script(kv.url(), 'STOP\nPUT w never\n')).lines, ['STOP']);
  assert.equal((await script(kv.url(), 'GET w\r\n')).lines, ['GET w last', 'STOP']);
});

test('bytes that are no word stay one', async ({ kv }) => {
  const store = await connectKv(kv.url());
  await store.put('odd/1', 'two words');
  await store.put('odd/2', '');
  await store.put('odd/3', Buffer.from([0xff, 10, 65]));
  await store.put('odd/4', 'Grüße\\x41');
  const { lines } = await script(kv.url(), 'SCAN odd/ odd/9\nGET odd/1\nPUT odd/é ü\n');
  const entries = ['odd/1 two\\x20words', 'odd/2 ""', 'odd/3 \\xff\\x0aA', 'odd/4 Grüße\\x41'];
  const scan = ['SCAN odd/ odd/9 BEGIN', ...entries.map((one) => `  ${one}`), 'SCAN END'];
  assert.equal(lines, [...scan, 'GET odd/1 two\\x20words', 'PUT odd/é not_found', 'STOP']);
  // What is no UTF-8 arrives as it is.
  await script(kv.url(), Buffer.from([...Buffer.from('PUT odd/5 '), 0xfe, 0x41]));
  assert.equal([...(await store.get('odd/5'))!.value], [0xfe, 0x41]);
  assert.is((await store.get('odd/é'))!.value.toString(), 'ü');
  await store.close();
});

test('the primary is killed in the middle: a pause, and each line has its answer', async ({ kv }) => {
  const session = new Session(kv.url());
  const { primary } = await kv.roles();
  const count = 100;
  const keys = 20;
  for (let i = 0; i < count; i++) {
    assert.is(await session.ask(`PUT f/${i % keys} v${i}`), `PUT f/${i % keys} ${i < keys ? 'not_found' : 'found'}`);
    if (i === 40) await kv.cluster.kill(primary);
    assert.is(await session.ask(`SWAP f/${i % keys} w${i}`), `SWAP f/${i % keys} v${i}`);
  }
  const names = Array.from({ length: keys }, (_, i) => i).sort((a, b) => (`f/${a}` < `f/${b}` ? -1 : 1));
  assert.equal(
    await session.scan('f/0', 'f/9'),
    names.map((i) => `  f/${i} w${count - keys + i}`),
  );
  assert.is(await session.ask('STOP'), 'STOP');
  assert.is(await session.code, 0);
  await kv.cluster.restart(primary);
  await kv.alive();
});

test('two shells on the same keys: each sees at once what the other was told is done', async ({ kv }) => {
  const { backups } = await kv.roles();
  const one = new Session(kv.url());
  const other = new Session(kv.url([backups[0]]), '--reads', 'listed');
  for (let i = 0; i < 16; i++) {
    const [writer, reader] = i % 2 === 0 ? [one, other] : [other, one];
    assert.is(await writer.ask(`PUT both ${i}`), `PUT both ${i === 0 ? 'not_found' : 'found'}`);
    assert.is(await reader.ask('GET both'), `GET both ${i}`);
    assert.equal(await reader.scan('both', 'both'), [`  both ${i}`]);
  }
  // At the same time: the values that SWAPs give back are a chain, none of them is given twice.
  const seen: string[] = [];
  const swap = async (session: Session, name: string): Promise<void> => {
    for (let i = 0; i < 30; i++) seen.push((await session.ask(`SWAP chain ${name}${i}`)).split(' ')[2]!);
  };
  await Promise.all([swap(one, 'a'), swap(other, 'b')]);
  seen.push((await one.ask('GET chain')).split(' ')[2]!);
  const all = ['null', ...['a', 'b'].flatMap((name) => Array.from({ length: 30 }, (_, i) => `${name}${i}`))];
  assert.equal(seen.sort(), all.sort());
  one.end();
  assert.is(await one.line(), 'STOP');
  assert.is(await one.code, 0);
  other.kill();
});

test('at a terminal: a prompt, and help', async ({ kv }) => {
  // Of util-linux: gives the command a terminal.
  const command = [process.execPath, MAIN, 'kv', 'shell', kv.url()].map((one) => `'${one}'`).join(' ');
  const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const started = await new Promise<boolean>((resolve) => {
    child.once('error', () => resolve(false));
    child.once('spawn', () => resolve(true));
  });
  if (!started) {
    process.stdout.write('# skip: script of util-linux is not here\n');
    return;
  }
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let printed = '';
  const waiting: Array<() => void> = [];
  child.stdout.on('data', (chunk: Buffer) => {
    printed += chunk.toString();
    for (const look of waiting) look();
  });
  const said = (text: string): Promise<void> =>
    new Promise((resolve) => {
      const look = (): void => {
        if (printed.includes(text)) resolve();
      };
      waiting.push(look);
      look();
    });
  await said('keys> ');
  child.stdin.write('help\n');
  await said('SWAP KEY VALUE');
  child.stdin.write('PUT typed yes\n');
  await said('PUT typed not_found');
  child.stdin.write('\x04');
  await said('STOP\r\n');
  assert.is(await ended, 0);
  assert.is((await script(kv.url(), 'GET typed\n')).lines[0], 'GET typed yes');
});

interface Latency {
  count: number;
  p50Us: number;
  p95Us: number;
  p99Us: number;
  p999Us: number;
  maxUs: number;
}

interface Result {
  operations: number;
  reads: Latency;
  writes: Latency;
  kinds: Record<string, Latency>;
  errors: number;
  firstError: string | null;
  absent: number;
  loaded: { keys: number };
  cleaned: number | null;
}

async function bench(
  kv: KvCluster,
  flags: string,
  meanwhile?: (child: ChildProcess) => Promise<void>,
): Promise<{ code: number | null; result: Result; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [MAIN, 'kv', 'bench', kv.url(), ...flags.split(' ')], { stdio: 'pipe' });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const [code] = await Promise.all([
    new Promise<number | null>((resolve) => child.once('close', resolve)),
    meanwhile?.(child),
  ]);
  return { code, result: (stdout.startsWith('{') ? JSON.parse(stdout) : null) as Result, stdout, stderr };
}

async function keysUnder(kv: KvCluster, prefix: string): Promise<string[]> {
  const store = await connectKv(kv.url());
  const keys: string[] = [];
  for await (const { key } of store.scan({ prefix, keysOnly: true })) keys.push(key.toString());
  await store.close();
  return keys;
}

test('bench: it says what it overwrites, counts every operation once, and deletes its own keys only', async ({
  kv,
}) => {
  const store = await connectKv(kv.url());
  await store.transaction().put('bench/mine', 'mine').put('bench/key-5', 'mine too').commit();
  const one = await bench(
    kv,
    '--load --keys 50 --value-bytes 20 --clients 4 --operations 400 --read-percent 75 --json',
  );
  assert.is(one.code, 0, one.stderr);
  assert.match(one.stderr, /^this overwrites keys of holdfast-kv:.* that begin with bench\/key-\n50 keys loaded in /);
  const { operations, reads, writes, kinds, errors, absent, loaded } = one.result;
  assert.equal([operations, reads.count + writes.count, errors, absent, loaded.keys], [400, 400, 0, 0, 50]);
  assert.ok(reads.count > 240 && reads.count < 360, `${reads.count} reads of 400 are no 75 %`);
  for (const { p50Us, p95Us, p99Us, p999Us, maxUs } of [reads, writes]) {
    const rising = [0.1, p50Us, p95Us, p99Us, p999Us, maxUs];
    assert.equal(
      rising,
      rising.toSorted((a, b) => a - b),
    );
  }
  assert.equal(Object.keys(kinds), ['read', 'update']);
  assert.is((await keysUnder(kv, 'bench/')).length, 52);
  assert.is((await store.get('bench/key-0000000000000049'))!.value.length, 20);
  // What is there is of somebody else: told, and no success.
  await store.put('bench/key-0000000000000000', 'something else');
  const other = await bench(kv, '--keys 1 --clients 1 --operations 3 --read-percent 100 --reads any --json');
  assert.equal([other.code, other.result.errors], [1, 3]);
  assert.match(other.result.firstError!, /bench\/key-0000000000000000 holds what belongs to another key/);
  const last = await bench(kv, '--keys 50 --operations 10 --read-percent 100 --distribution zipf --clean');
  assert.match(last.stdout, /^10 operations in .*\n(?:.*\n)*50 keys deleted\n$/);
  assert.match(last.stderr, /^this deletes keys of /);
  assert.equal(await keysUnder(kv, 'bench/'), ['bench/key-5', 'bench/mine']);
  await store.close();
});

test('bench: the workloads of YCSB do what is published', async ({ kv }) => {
  const expected = {
    d: { read: [0.9, 1], insert: [0.01, 0.1] },
    e: { insert: [0.01, 0.1], scan: [0.9, 1] },
    f: { read: [0.4, 0.6], readModifyWrite: [0.4, 0.6] },
  } as const;
  for (const [letter, shares] of Object.entries(expected)) {
    const { code, result, stderr } = await bench(
      kv,
      `--ycsb ${letter} --load --prefix y/ --keys 300 --operations 600 --json`,
    );
    assert.is(code, 0, stderr);
    assert.equal([result.operations, result.errors, result.absent], [600, 0, 0], letter);
    assert.equal(Object.keys(result.kinds).sort(), Object.keys(shares).sort());
    for (const [kind, [least, most]] of Object.entries(shares)) {
      const share = result.kinds[kind]!.count / 600;
      assert.ok(share >= least && share <= most, `${letter}: ${kind} is ${share} of all`);
    }
    if (letter === 'd') assert.is((await keysUnder(kv, 'y/')).length, 300 + result.kinds['insert']!.count);
  }
  const store = await connectKv(kv.url());
  assert.is((await store.get('y/key-0000000000000000'))!.value.length, 1000);
  await store.close();
  assert.match((await bench(kv, '--ycsb a --read-percent 5')).stderr, /leave out --read-percent/);
  assert.match((await bench(kv, '--seconds 1 --operations 5')).stderr, /both --seconds and --operations/);
});

test('bench: the primary is killed meanwhile, and no operation fails; the generator ends with the command', async ({
  kv,
}) => {
  const { primary } = await kv.roles();
  const { code, result, stderr } = await bench(kv, '--load --keys 100 --seconds 3 --json', async (child) => {
    let told = '';
    await new Promise<void>((resolve) =>
      child.stderr!.on('data', (chunk: Buffer) => {
        told += chunk.toString();
        if (/^1 s: /m.test(told)) resolve();
      }),
    );
    await kv.cluster.kill(primary);
  });
  assert.is(code, 0, stderr);
  assert.equal([result.errors, result.absent], [0, 0]);
  assert.match(stderr, /^2 s: \d+ operations\/s, p99 of reads .*, 0 errors$/m);
  await kv.cluster.restart(primary);
  await kv.alive();
  const killed = await bench(kv, '--seconds 600', async (child) => {
    const { pid } = child;
    const children = (): string => readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    await until(() => children() !== '', 'the generator to run');
    const generator = children();
    child.kill('SIGKILL');
    await until(() => !existsSync(`/proc/${generator}`), 'the generator to end');
  });
  assert.is(killed.code, null);
});

test.run();

/**
 * Random conversations of several clients with one volume that answers in random order, late. Each client uses keys of
 * its own, so that what it is told must be what the commands, one after the other, would give; and all of them change
 * shared counters in transactions, none of which may be lost. A failing case names its seed: HOLDFAST_FUZZ_SEED runs
 * that one alone.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Random } from '../support/random.ts';
import { RespBench, type Told } from '../support/resp-sessions.ts';
import { type Tree, encodeCommand } from '../support/resp-replies.ts';

const CASES = 400;
const only = process.env['HOLDFAST_FUZZ_SEED'];
const seeds = only === undefined ? Array.from({ length: CASES }, (_, i) => i) : [Number(only)];

const OK: Tree = { status: 'OK' };
const NOT_INTEGER: Tree = { error: 'ERR value is not an integer or out of range' };

/** What one client's keys are, in the plainest way. */
class Plain {
  readonly values: Map<string, string> = new Map();
  private readonly ttls: Set<string> = new Set();

  run([name, key, ...rest]: string[]): Tree {
    const { values, ttls } = this;
    const old = values.get(key!) ?? null;
    const put = (value: string, ttl = false): void => {
      values.set(key!, value);
      if (ttl) ttls.add(key!);
      else ttls.delete(key!);
    };
    const count = (found: boolean): Tree => `:${found ? 1 : 0}`;
    switch (name) {
      case 'GET':
        return old;
      case 'SET': {
        const [value, ...options] = rest;
        const skip = (options.includes('NX') && old !== null) || (options.includes('XX') && old === null);
        if (!skip) put(value!, options.includes('EX') || (options.includes('KEEPTTL') && ttls.has(key!)));
        return options.includes('GET') ? old : skip ? null : OK;
      }
      case 'GETDEL':
      case 'DEL':
        values.delete(key!);
        ttls.delete(key!);
        return name === 'DEL' ? count(old !== null) : old;
      case 'EXISTS':
        return count(old !== null);
      case 'STRLEN':
        return `:${old?.length ?? 0}`;
      case 'INCRBY': {
        if (old !== null && !/^-?[0-9]+$/.test(old)) return NOT_INTEGER;
        values.set(key!, String(BigInt(old ?? '0') + BigInt(rest[0]!)));
        return `:${values.get(key!)}`;
      }
      case 'EXPIRE': {
        if (old === null) return ':0';
        if (rest[1] === 'NX' && ttls.has(key!)) return ':0';
        if (rest[1] === 'XX' && !ttls.has(key!)) return ':0';
        ttls.add(key!);
        return ':1';
      }
      case 'PERSIST':
        return count(old !== null && ttls.delete(key!));
      case 'TTL':
        return old === null ? ':-2' : ttls.has(key!) ? ':100' : ':-1';
      case 'MGET':
        return ['*', ...[key!, ...rest].map((one) => values.get(one) ?? null)];
      case 'ECHO':
        return key!;
      default:
        throw new Error(name);
    }
  }
}

function randomCommand(random: Random, prefix: string): string[] {
  const key = (): string => `${prefix}${random.below(4)}`;
  const value = (): string =>
    random.chance(0.5) ? String(random.below(1000)) : `v\r\n\xff${'x'.repeat(random.below(300))}`;
  const pick = <T>(...from: T[]): T => from[random.below(from.length)]!;
  const options = (): string[] =>
    pick<string[]>([], [], ['NX'], ['XX'], ['GET'], ['EX', '100'], ['XX', 'KEEPTTL'], ['EX', '100', 'GET', 'NX']);
  return pick<() => string[]>(
    () => ['GET', key()],
    () => ['GET', key()],
    () => ['SET', key(), value(), ...options()],
    () => ['SET', key(), value(), ...options()],
    () => ['GETDEL', key()],
    () => ['DEL', key()],
    () => ['EXISTS', key()],
    () => ['STRLEN', key()],
    () => ['INCRBY', key(), String(random.below(2000) - 1000)],
    () => ['EXPIRE', key(), '100', ...pick<string[]>([], ['NX'], ['XX'])],
    () => ['PERSIST', key()],
    () => ['TTL', key()],
    () => ['MGET', key(), key(), key()],
    () => ['ECHO', value()],
  )();
}

/** One client: what it sends, and what it must be told. */
interface Talk {
  told: Told;
  stream: Buffer[];
  expected: Tree[];
}

function talk(bench: RespBench, random: Random, number: number): Talk {
  const plain = new Plain();
  const stream: Buffer[] = [];
  const expected: Tree[] = [];
  const say = (command: string[], reply: Tree): void => {
    stream.push(encodeCommand(command));
    expected.push(reply);
  };
  for (let i = random.below(40); i >= 0; i--) {
    if (random.chance(0.85)) {
      const command = randomCommand(random, `c${number}:`);
      say(command, plain.run(command));
      continue;
    }
    const commands = Array.from({ length: random.below(5) }, () => randomCommand(random, `c${number}:`));
    const allowed = commands.filter(([name, , , option]) => name !== 'EXPIRE' || option === undefined);
    if (random.chance(0.3)) say(['WATCH', `c${number}:0`], OK);
    say(['MULTI'], OK);
    for (const command of allowed) say(command, { status: 'QUEUED' });
    say(['INCRBY', 'shared', '1'], { status: 'QUEUED' });
    if (random.chance(0.2)) say(['DISCARD'], OK);
    else {
      // The counter is everybody's: its value is looked at in the end.
      say(['EXEC'], ['*', ...allowed.map((command) => plain.run(command)), 'any']);
    }
  }
  return { told: bench.open(), stream, expected };
}

async function converse(seed: number): Promise<void> {
  const random = new Random(seed);
  const bench = new RespBench({ limits: { maxUnderWay: 1 + random.below(20) } });
  const talks = Array.from({ length: 1 + random.below(4) }, (_, i) => talk(bench, random, i));
  const rests = talks.map(({ stream }) => Buffer.concat(stream));
  while (rests.some((rest) => rest.length > 0) || bench.later.works.length > 0) {
    const at = random.below(talks.length);
    if (rests[at]!.length > 0 && random.chance(0.5)) {
      const piece = 1 + random.below(random.chance(0.3) ? 20 : 2000);
      talks[at]!.told.session.receive(Buffer.from(rests[at]!.subarray(0, piece)));
      rests[at] = rests[at]!.subarray(piece);
    }
    if (bench.later.works.length > 0 && random.chance(0.6)) bench.later.run(random.below(bench.later.works.length));
    if (random.chance(0.3)) await Promise.resolve();
  }
  await bench.settle((count) => random.below(count));
  let added = 0;
  for (const { told, expected } of talks) {
    const replies = told.replies();
    assert.is(replies.length, expected.length, `seed ${seed}`);
    replies.forEach((reply, i) => {
      const must = expected[i]!;
      if (Array.isArray(must) && must[must.length - 1] === 'any') {
        added++;
        assert.ok(Array.isArray(reply), `EXEC was not applied: ${JSON.stringify(reply)}`);
        assert.equal((reply as Tree[]).slice(0, -1), (must as Tree[]).slice(0, -1), `seed ${seed}, reply ${i}`);
      } else assert.equal(reply, must, `seed ${seed}, reply ${i}`);
    });
    // A small buffer for lines may stay.
    assert.ok(told.session.keptBytes <= 4096, `seed ${seed} keeps ${told.session.keptBytes} bytes`);
    assert.is(told.session.underWay, 0);
  }
  const last = bench.open();
  last.send('GET', 'shared');
  await bench.settle();
  assert.equal(last.replies(), [added === 0 ? null : String(added)], `seed ${seed}`);
}

test('random conversations', async () => {
  for (const seed of seeds) await converse(seed);
});

test.run();

/**
 * Our port beside the real redis-server: both get the same commands, and answer the same bytes. The volume behind it is
 * the model; test/cluster/kv-redis plays the same scripts on a node's port with a replicated one.
 *
 * What is known to differ, and therefore not asked here or compared otherwise: the order of KEYS and SCAN, the numbers
 * of cursors, and that Redis takes any number or nothing for one; TTLs, by a moment; READONLY (an error of Redis without a cluster), CLIENT SETINFO (younger than Redis 7.0),
 * SELECT of other databases than 0; COMMAND's tips and key specifications; WATCH of an absent key that was made and
 * deleted again; DBSIZE, SCAN, KEYS, EXPIRE with conditions and MSETNX of several keys within MULTI.
 */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RespServer } from '../../src/node/resp-server.ts';
import { MemoryKv } from '../support/memory-kv.ts';
import { RedisServer, hasTool } from '../support/redis-server.ts';
import { RespClient } from '../support/resp-client.ts';
import { type Both, Pair, playTwice, wordsOf } from '../support/resp-pair.ts';
import { type Tree, encodeCommand, readReply } from '../support/resp-replies.ts';
import { ERROR_SCRIPT } from './error-script.ts';
import { COMMAND_SCRIPT, TRANSACTION_SCRIPT } from './scripts.ts';

const test = suite('RESP against Redis');

/** What a test started, whether or not it came to its end. */
const started: Array<() => Promise<void>> = [];
test.after.each(async () => {
  for (const stop of started.splice(0)) await stop();
});

async function both(password: string | null = null): Promise<Both> {
  const flags = password === null ? [] : ['--requirepass', password];
  const redis = await RedisServer.start(...flags);
  started.push(() => redis.stop());
  const kv = new MemoryKv({ now: () => Date.now(), later: setImmediate });
  const server = new RespServer({ volume: () => kv, version: '0', password, log: () => {} });
  const address = await server.listen('127.0.0.1:0');
  const port = Number(address.split(':')[1]);
  const pairs: Pair[] = [];
  started.push(async () => {
    for (const pair of pairs) pair.close();
    await server.close();
  });
  return async () => {
    const pair = new Pair(await redis.client(), await RespClient.open(port));
    pairs.push(pair);
    return pair;
  };
}

const numberOf = (reply: Buffer): number => {
  assert.match(reply.toString(), /^:-?\d+\r\n$/);
  return Number(reply.toString().slice(1));
};
const sortedOf = (tree: Tree): Tree[] => {
  assert.ok(Array.isArray(tree));
  return (tree as Tree[]).slice(1).sort((a, b) => ((a as string) < (b as string) ? -1 : 1));
};

if (!hasTool('redis-server')) {
  process.stdout.write('# skip: redis-server is not installed\n');
} else {
  for (const [name, script] of Object.entries({ COMMAND_SCRIPT, ERROR_SCRIPT, TRANSACTION_SCRIPT })) {
    test(`${name}, in both protocols`, async () => {
      const servers = await both();
      const asked = await playTwice(servers, script);
      assert.ok(asked > 90, `${asked} commands`);
    });
  }

  test('inline commands, and streams that are no commands', async () => {
    const servers = await both();
    const streams = [
      "PING\r\nPING\n  echo   \"a b\\x41\\n\\t\"  \r\n\r\n*0\r\n*-1\r\n*-5\r\nECHO 'it\\'s'\r\nQUIT\r\nPING\r\n",
      'set a "b\r\n',
      'set a "b"c\r\n',
      "set a 'b'c\r\n",
      '*3\r\n$3\r\nSET\r\n$1\r\na\r\n$-1\r\n',
      '*1\r\nPING\r\n',
      '*1\r\n\r\n',
      '*x\r\n',
      '*01\r\n',
      '*\r\n',
      '*2147483648\r\n',
      '*1\r\n$x\r\n',
      '*1\r\n$99999999999\r\n',
      '*1\r\n:4\r\nPING\r\n',
      'PING\r\n*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\nGET a\r\n*2\r\n$3\r\nGET\r\n$-2\r\n',
      `*${'1'.repeat(70_000)}`,
      `*1\r\n$${'1'.repeat(70_000)}`,
      'a'.repeat(70_000),
      'POST / HTTP/1.1\r\nHost: a\r\n\r\nPING\r\n',
      'Host: a\r\nPING\r\n',
    ];
    for (const stream of streams) {
      const pair = await servers();
      pair.redis.send(stream);
      pair.ours.send(stream);
      // Each of them ends the connection.
      await Promise.all([pair.redis.closed, pair.ours.closed]);
      assert.is(pair.ours.rest.toString('latin1'), pair.redis.rest.toString('latin1'), stream.slice(0, 60));
    }
  });

  test('a password', async () => {
    const servers = await both('s3cret');
    const pair = await servers();
    const commands = [
      ['GET', 'a'],
      ['FOO'],
      ['GET'],
      ['HELLO', '3'],
      ['PING'],
      ['CLIENT', 'ID'],
      ['COMMAND', 'COUNT'],
      ['EXEC'],
      ['MULTI'],
      ['AUTH', 'wrong'],
      ['AUTH', 'nobody', 's3cret'],
      ['AUTH', 'default', 'wrong'],
      ['AUTH', 'a', 'b', 'c'],
      ['HELLO', '2', 'AUTH', 'default', 'wrong'],
      ['HELLO', '2', 'AUTH', 'default'],
      ['AUTH', 's3cret'],
      ['GET', 'a'],
      ['RESET'],
      ['GET', 'a'],
      ['AUTH', 'default', 's3cret'],
      ['PING'],
    ];
    for (const command of commands) await pair.same(encodeCommand(command), command.join(' '));
    for (const stream of ['*11\r\n', '*1\r\n$16385\r\n']) {
      const stranger = await servers();
      await stranger.same(Buffer.from(stream), stream);
      await Promise.all([stranger.redis.closed, stranger.ours.closed]);
    }
    const known = await servers();
    await known.same(encodeCommand(['AUTH', 's3cret']), 'AUTH');
    await known.same(encodeCommand(['ECHO', 'x'.repeat(20_000)]), 'a long argument');
  });

  test('times to live, within a second', async () => {
    const servers = await both();
    const pair = await servers();
    const close = async (toleranceMs: number, ...command: string[]): Promise<void> => {
      const { redis, ours } = await pair.ask(encodeCommand(command));
      const difference = Math.abs(numberOf(redis) - numberOf(ours));
      assert.ok(difference <= toleranceMs, `${command.join(' ')}: ${redis.toString()} and ${ours.toString()}`);
    };
    const inAnHour = Math.floor(Date.now() / 1000) + 3600;
    const settings = [
      ['SET', 'k', 'v', 'EX', '100'],
      ['SET', 'k', 'v', 'px', '123456'],
      ['SET', 'k', 'v', 'EXAT', String(inAnHour)],
      ['SET', 'k', 'v', 'PXAT', `${inAnHour}123`],
      ['SETEX', 'k', '50', 'v'],
      ['PSETEX', 'k', '50000', 'v'],
      ['EXPIRE', 'k', '1000'],
      ['PEXPIRE', 'k', '999999'],
      ['EXPIREAT', 'k', String(inAnHour)],
      ['PEXPIREAT', 'k', `${inAnHour}999`],
      ['EXPIRE', 'k', '100', 'LT'],
      ['EXPIRE', 'k', '200', 'GT'],
      ['EXPIRE', 'k', '50', 'GT'],
      ['EXPIRE', 'k', '300', 'XX'],
      ['EXPIRE', 'k', '400', 'NX'],
      ['EXPIRE', 'k', '500', 'xx', 'gt'],
      ['GETEX', 'k', 'EX', '77'],
      ['GETEX', 'k'],
      ['SET', 'k', 'w', 'KEEPTTL'],
      ['INCR', 'number'],
    ];
    for (const command of settings) {
      await pair.same(encodeCommand(command), command.join(' '));
      await close(1, 'TTL', 'k');
      await close(1000, 'PTTL', 'k');
      await close(1, 'EXPIRETIME', 'k');
      await close(1000, 'PEXPIRETIME', 'k');
    }
    // What was set by the clock is the same to the millisecond.
    await pair.same(encodeCommand(['PEXPIREAT', 'k', `${inAnHour}999`]), 'PEXPIREAT');
    await pair.same(encodeCommand(['PEXPIRETIME', 'k']), 'PEXPIRETIME');
    await pair.same(encodeCommand(['EXPIRETIME', 'k']), 'EXPIRETIME');
    await pair.same(encodeCommand(['SET', 'k', 'v']), 'SET takes the time to live away');
    await pair.same(encodeCommand(['TTL', 'k']), 'TTL');
  });

  test('SCAN and KEYS find the same', async () => {
    const servers = await both();
    const pair = await servers();
    for (let i = 0; i < 300; i++) {
      await pair.same(encodeCommand(['SET', `${i % 3 === 0 ? 'user' : 'it[em'}:${i}\xff`, 'v']), 'SET');
    }
    const patterns = ['*', 'user:*', 'it[[]em:1?\xff', 'it\\[em*', '*[1-3]\xff', '*[^1-3]\xff', '??*9*9*', 'none*'];
    patterns.push('user:[30]*', 'it[', 'it[em:1\xff', '[a-h]t*', '[z-a]*', '*\\', '**1**', '?', '');
    for (const pattern of patterns) {
      const { redis, ours } = await pair.ask(encodeCommand(['KEYS', pattern]));
      assert.equal(sortedOf(readReply(ours)!.tree), sortedOf(readReply(redis)!.tree), pattern);
      const whole = sortedOf(readReply(ours)!.tree);
      for (const count of ['1', '7', '1000']) {
        const found: Tree[] = [];
        let cursor = '0';
        do {
          const more = ['MATCH', pattern, 'COUNT', count, 'TYPE', 'string'];
          const page = readReply(await pair.ours.call('SCAN', cursor, ...more))!.tree as Tree[];
          cursor = page[1] as string;
          found.push(...(page[2] as Tree[]).slice(1));
        } while (cursor !== '0');
        assert.equal(found, whole, `SCAN MATCH ${pattern} COUNT ${count}`);
      }
    }
    await pair.same(encodeCommand(['DBSIZE']), 'DBSIZE');
    await pair.same(encodeCommand(['SCAN', '0', 'TYPE', 'list', 'COUNT', '1000']), 'no lists');
  });

  test('COMMAND: names, arities, flags, positions of keys and categories', async () => {
    const servers = await both();
    const pair = await servers();
    const names = (readReply(await pair.ours.call('COMMAND', 'LIST'))!.tree as Tree[]).slice(1) as string[];
    assert.ok(names.length > 50);
    const subcommands = ['client|setname', 'client|list', 'client|id', 'config|get', 'command|docs', 'command|count'];
    const { redis, ours } = await pair.ask(encodeCommand(['COMMAND', 'INFO', ...names, ...subcommands]));
    const rows = (reply: Buffer): Tree[][] => (readReply(reply)!.tree as Tree[]).slice(1) as Tree[][];
    const [theirs, mine] = [rows(redis), rows(ours)];
    mine.forEach((row, i) => {
      // The first element is the sign of the array.
      assert.equal(row.slice(0, 8), theirs[i]!.slice(0, 8), row[1] as string);
      assert.is(row.length, theirs[i]!.length);
    });
  });

  test('keys and values of all bytes', async () => {
    const servers = await both();
    const pair = await servers();
    const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
    await pair.same(encodeCommand(['SET', bytes, bytes]), 'SET');
    await pair.same(encodeCommand(['GET', bytes]), 'GET');
    await pair.same(encodeCommand(['MGET', bytes, bytes.subarray(1), bytes]), 'MGET');
    await pair.same(encodeCommand(['GETRANGE', bytes, '3', '-4']), 'GETRANGE');
    const large = Buffer.alloc(100_000, 'holdfast\r\n');
    await pair.same(encodeCommand(['SET', 'large', large]), 'SET');
    await pair.same(encodeCommand(['GET', 'large']), 'GET');
    await pair.same(encodeCommand(['STRLEN', 'large']), 'STRLEN');
  });

  test('a pipeline of everything is answered like one by one', async () => {
    const servers = await both();
    const pair = await servers();
    const lines = COMMAND_SCRIPT.split('\n').map((line) => line.trim());
    const commands = lines.filter((line) => line !== '' && !line.startsWith('#') && !line.startsWith('2> '));
    const stream = Buffer.concat(commands.map((line) => encodeCommand(wordsOf(line))));
    pair.redis.send(stream);
    pair.ours.send(stream);
    for (const line of commands) {
      const [redis, ours] = await Promise.all([pair.redis.next(), pair.ours.next()]);
      assert.is(ours!.toString('latin1'), redis!.toString('latin1'), line);
    }
  });

  test.run();
}

/** A session beside its volume: the order of replies, what waits for what, bounds, and the volume's errors. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ErrorCode, HoldfastError } from '../../src/base/errors.ts';
import { RespBench } from '../support/resp-sessions.ts';
import { type Tree, encodeCommand } from '../support/resp-replies.ts';

const test = suite('RESP session');
const ok: Tree = { status: 'OK' };
const errorOf = (tree: Tree): string => (tree as { error: string }).error;
const pipeline = (...lines: string[]): Buffer => Buffer.concat(lines.map((line) => encodeCommand(line.split(' '))));

test('replies of one turn are one write, in the order of the commands', async () => {
  const bench = new RespBench();
  const told = bench.open();
  told.session.receive(pipeline('SET a 1', 'SET b 2', 'PING', 'FOO', 'SET c 3'));
  assert.is(bench.later.works.length, 3, 'three writes under way at once');
  await Promise.resolve();
  assert.is(told.writes.length, 0, 'nothing before the first is durable');
  bench.later.run();
  bench.later.run();
  bench.later.run();
  await Promise.resolve();
  assert.is(told.writes.length, 1);
  const replies = told.replies();
  assert.equal([replies[0], replies[1], replies[2], replies[4]], [ok, ok, { status: 'PONG' }, ok]);
});

test('a read behind a write sees it, a write behind a read is not seen by it', async () => {
  for (let order = 0; order < 50; order++) {
    const bench = new RespBench();
    const told = bench.open();
    let seed = order;
    const choose = (count: number): number => {
      seed = (seed * 48_271 + 11) % 0x7fff_ffff;
      return seed % count;
    };
    told.session.receive(pipeline('SET a 1', 'GET a', 'SET a 2', 'MGET a a', 'DBSIZE', 'SET b 1', 'GET a', 'SET a 3'));
    told.session.receive(pipeline('DBSIZE', 'GET a', 'DEL a', 'EXISTS a', 'SCAN 0'));
    await bench.settle(choose);
    assert.equal(told.replies(), [
      ok,
      '1',
      ok,
      ['*', '2', '2'],
      ':1',
      ok,
      '2',
      ok,
      ':2',
      '3',
      ':1',
      ':0',
      ['*', '0', ['*', 'b']],
    ]);
  }
});

test('reads run side by side, and do not wait behind writes for long', async () => {
  const bench = new RespBench();
  const told = bench.open();
  told.session.receive(pipeline('GET a', 'GET b', 'MGET a b'));
  assert.is(bench.later.works.length, 3);
  told.session.receive(pipeline('SET a 1', 'GET a'));
  assert.is(bench.later.works.length, 3, 'the write waits for the reads');
  for (let i = 0; i < 3; i++) bench.later.run();
  assert.is(bench.later.works.length, 2, 'the read goes with the write');
  await bench.settle();
  assert.equal(told.replies().slice(3), [ok, '1']);
});

test('commands under way are bounded, and so is what is read behind them', async () => {
  const bench = new RespBench({ limits: { maxUnderWay: 4, pauseAtBytes: 1000 } });
  const told = bench.open();
  const count = 100;
  told.session.receive(pipeline(...Array.from({ length: count }, (_, i) => `SET key${i} value`)));
  assert.is(bench.later.works.length, 4);
  assert.is(told.session.underWay, 4);
  assert.equal(told.pauses, [true]);
  assert.is(told.session.isPaused, true);
  let most = 0;
  while (bench.later.works.length > 0) {
    most = Math.max(most, bench.later.works.length);
    bench.later.run();
  }
  await Promise.resolve();
  assert.is(most, 4);
  assert.equal(told.pauses, [true, false]);
  assert.is(told.replies().length, count);
});

test('keys under way are bounded: a command with many of them is alone', async () => {
  const bench = new RespBench({ limits: { maxUnderWayKeys: 10 } });
  const told = bench.open();
  const many = `MGET ${Array.from({ length: 20 }, (_, i) => `k${i}`).join(' ')}`;
  told.session.receive(pipeline('MGET a b c d e f', 'GET a', 'MGET a b c d', many, 'GET a', 'GET b'));
  assert.is(bench.later.works.length, 2);
  bench.later.run();
  assert.is(bench.later.works.length, 2, 'the third, beside the second');
  bench.later.run();
  assert.is(bench.later.works.length, 1);
  bench.later.run();
  assert.is(bench.later.works.length, 1, 'the large one');
  bench.later.run();
  assert.is(bench.later.works.length, 2, 'those behind it');
  await bench.settle();
  assert.is(told.replies().length, 6);
});

test('replies that wait for one before them are bounded', async () => {
  const bench = new RespBench({ limits: { maxHeldBytes: 10_000 } });
  const told = bench.open();
  const echo = `ECHO ${'x'.repeat(1000)}`;
  told.session.receive(pipeline('SET a 1', ...Array.from({ length: 50 }, () => echo)));
  assert.ok(told.session.underWay <= 11, `${told.session.underWay} under way`);
  await bench.settle();
  assert.is(told.replies().length, 51);
  assert.is(told.session.keptBytes, 0);
});

test('a client that does not read has nothing begun', async () => {
  const bench = new RespBench();
  const told = bench.open();
  told.session.hold(true);
  told.session.receive(pipeline('SET a 1', 'PING'));
  assert.is(bench.later.works.length, 0);
  told.session.hold(false);
  await bench.settle();
  assert.equal(told.replies(), [ok, { status: 'PONG' }]);
});

test('QUIT, a protocol error and leaving: what was begun is answered before the end', async () => {
  for (const last of ['quit', 'garbage', 'leave', 'finish']) {
    const bench = new RespBench();
    const told = bench.open();
    told.session.receive(pipeline('SET a 1'));
    if (last === 'quit') told.session.receive(pipeline('QUIT', 'SET a 2'));
    else if (last === 'garbage') told.session.receive(Buffer.from('*x\r\n*1\r\n$4\r\nPING\r\n'));
    else if (last === 'leave') told.session.leave();
    else told.session.finishInput();
    await Promise.resolve();
    assert.is(told.closed, false, last);
    await bench.settle();
    assert.is(told.closed, true, last);
    const replies = told.replies();
    assert.equal(replies[0], ok);
    if (last === 'garbage') assert.is(errorOf(replies[1]!), 'ERR Protocol error: invalid multibulk length');
    assert.is(replies.length, last === 'quit' || last === 'garbage' ? 2 : 1);
    told.session.receive(pipeline('PING'));
    await bench.settle();
    assert.is(told.writes.length, 0);
  }
});

test('commands that came before the client closed its side are all answered', async () => {
  const bench = new RespBench({ limits: { maxUnderWay: 2 } });
  const told = bench.open();
  told.session.receive(pipeline('SET a 1', 'SET a 2', 'SET a 3', 'DBSIZE', 'GET a'));
  told.session.finishInput();
  await bench.settle();
  assert.equal(told.replies(), [ok, ok, ok, ':1', '3']);
  assert.is(told.closed, true);
});

test('after its end a session calls nobody', async () => {
  const bench = new RespBench();
  const told = bench.open();
  told.session.receive(pipeline('SET a 1', 'GET a', 'DBSIZE'));
  told.session.end();
  await bench.settle();
  assert.is(told.writes.length, 0);
  assert.is(told.closed, false);
});

test("the volume's errors, by what the client should do", async () => {
  const words: Partial<Record<ErrorCode, string>> = {
    NOT_PRIMARY: 'TRYAGAIN',
    BUSY: 'TRYAGAIN',
    SHUTTING_DOWN: 'TRYAGAIN',
    NO_SPACE: 'OOM command not allowed:',
    TOO_LARGE: 'ERR',
    OUTCOME_UNKNOWN: 'UNKNOWN',
    CONNECTION_LOST: 'UNKNOWN',
    READ_ONLY: 'READONLY',
    POISONED: 'ERR',
  };
  for (const [code, word] of Object.entries(words)) {
    const bench = new RespBench();
    const told = bench.open();
    bench.kv.trouble = new HoldfastError(code as ErrorCode, { detail: 'ü\r\nx' });
    const lines = ['SET a 1', 'GET a', 'MGET a b', 'EXPIRE a 10 NX', 'SCAN 0', 'KEYS *', 'DBSIZE', 'INCR a'];
    told.session.receive(pipeline(...lines, 'MULTI', 'SET a 1', 'EXEC'));
    await bench.settle();
    const replies = told.replies();
    assert.is(replies.length, lines.length + 3);
    for (const at of [0, 1, 2, 3, 4, 5, 6, 7, 10]) {
      const text = errorOf(replies[at]!);
      assert.is(Buffer.from(text, 'latin1').toString(), `${word} ${bench.kv.trouble.message.replace('\r\n', '  ')}`);
    }
    bench.kv.trouble = null;
    told.send('GET', 'a');
    await bench.settle();
    assert.equal(told.replies(), [null], 'the connection goes on');
  }
});

test('INFO counts the keys that go away by themselves; CONFIG GET tells whether the volume is durable', async () => {
  const bench = new RespBench();
  const told = bench.open();
  const ask = async (line: string): Promise<Tree> => {
    told.session.receive(pipeline(line));
    await bench.settle();
    return told.replies()[0]!;
  };
  for (const line of ['SET a 1', 'SET b 1 EX 100', 'SET c 1 EX 100', 'PERSIST c']) await ask(line);
  assert.match(JSON.stringify(await ask('INFO keyspace')), /\\r\\ndb0:keys=3,expires=1,avg_ttl=0\\r\\n/);
  for (const [durable, word] of [
    [true, 'always'],
    [false, 'no'],
  ] as const) {
    bench.kv.durable = durable;
    assert.equal(await ask('CONFIG GET appendfsync'), ['*', 'appendfsync', word]);
  }
});

test('no volume: every command says so, the connection stays', async () => {
  const bench = new RespBench();
  const told = bench.open();
  const { volume } = bench.node;
  bench.node.volume = () => {
    throw new HoldfastError('NOT_PRIMARY', { remedy: 'ask n2' });
  };
  told.session.receive(pipeline('GET a', 'SET a 1', 'DBSIZE', 'INFO', 'PING'));
  await bench.settle();
  const replies = told.replies();
  for (const reply of replies.slice(0, 4)) assert.match(errorOf(reply), /^TRYAGAIN .*ask n2$/);
  assert.equal(replies[4], { status: 'PONG' });
  // A watch that is not known must not let an EXEC through.
  told.session.receive(pipeline('WATCH a'));
  await bench.settle();
  bench.node.volume = volume;
  told.session.receive(pipeline('MULTI', 'SET a 1', 'EXEC', 'MULTI', 'SET a 2', 'EXEC'));
  await bench.settle();
  const after = told.replies();
  assert.match(errorOf(after[3]!), /^EXECABORT /);
  assert.equal(after[6], ['*', ok]);
});

test('a WATCH that fails makes the EXEC fail', async () => {
  const bench = new RespBench();
  const told = bench.open();
  bench.kv.trouble = new HoldfastError('BUSY');
  told.send('WATCH', 'a');
  await bench.settle();
  bench.kv.trouble = null;
  told.session.receive(pipeline('MULTI', 'SET a 1', 'EXEC', 'GET a'));
  await bench.settle();
  const replies = told.replies();
  assert.match(errorOf(replies[0]!), /^TRYAGAIN /);
  assert.match(errorOf(replies[3]!), /^EXECABORT /);
  assert.is(replies[4], null);
});

test('EXEC is one transaction', async () => {
  const bench = new RespBench();
  const told = bench.open();
  let calls = 0;
  const execute = bench.kv.execute.bind(bench.kv);
  bench.kv.execute = (transaction, id, done) => {
    calls++;
    execute(transaction, id, done);
  };
  told.session.receive(pipeline('MULTI', 'SET a 1', 'INCR a', 'GET a', 'MGET a b', 'EXEC'));
  await bench.settle();
  assert.is(calls, 1);
  assert.equal(told.replies().pop(), ['*', ok, ':2', '2', ['*', '2', null]]);
});

test('what no transaction can hold is refused within MULTI, and the EXEC with it', async () => {
  const bench = new RespBench();
  for (const line of ['SCAN 0', 'KEYS *', 'DBSIZE', 'EXPIRE a 1 NX', 'MSETNX a 1 b 2']) {
    const told = bench.open();
    told.session.receive(pipeline('MULTI', 'SET a 1', line, 'EXEC', 'GET a'));
    await bench.settle();
    const replies = told.replies();
    assert.match(errorOf(replies[2]!), /not supported inside MULTI$/, line);
    assert.match(errorOf(replies[3]!), /^EXECABORT /, line);
    assert.is(replies[4], null);
  }
});

test('a MULTI is bounded', async () => {
  const bench = new RespBench({ limits: { maxQueued: 3 } });
  const told = bench.open();
  told.session.receive(pipeline('MULTI', 'PING', 'PING', 'PING', 'PING', 'EXEC', 'PING'));
  await bench.settle();
  const replies = told.replies();
  assert.is(errorOf(replies[4]!), 'ERR the transaction is too large');
  assert.match(errorOf(replies[5]!), /^EXECABORT /);
  assert.equal(replies[6], { status: 'PONG' });
});

test('EXPIRE with a condition: when others keep changing the key, the client is told to try again', async () => {
  const bench = new RespBench();
  const [told, other] = [bench.open(), bench.open()];
  other.send('SET', 'a', '0');
  await bench.settle();
  told.send('EXPIRE', 'a', '10', 'NX');
  for (let i = 0; bench.later.works.length > 0; i++) {
    bench.later.run();
    if (bench.later.works.length === 0) break;
    // Between its look and its change.
    bench.kv.execute(
      {
        conditions: [],
        steps: [
          { type: 'put', key: 'a', value: Buffer.from(String(i)), expiry: 'none', when: 'always', previous: false },
        ],
      },
      null,
      () => {},
    );
    // The put goes first.
    const [change, put] = bench.later.works.splice(0, 2);
    const row = (bench.kv as unknown as { row: unknown[] }).row;
    row.push(row.shift());
    put!();
    change!();
  }
  await Promise.resolve();
  assert.match(errorOf(told.replies()[0]!), /^TRYAGAIN .*keep changing/);
});

test('WAIT answers the replicas, after the writes before it', async () => {
  let replicas = 1;
  const bench = new RespBench({ replicas: () => replicas });
  const told = bench.open();
  told.session.receive(pipeline('SET a 1', 'WAIT 1 1000', 'PING'));
  await Promise.resolve();
  assert.is(told.writes.length, 0);
  // Those that are there when the write is durable count.
  replicas = 2;
  await bench.settle();
  assert.equal(told.replies(), [ok, ':2', { status: 'PONG' }]);
});

test('a changing protocol, password and name follow the order of the commands', async () => {
  const bench = new RespBench({ password: 'x' });
  const told = bench.open();
  told.session.receive(
    pipeline('GET a', 'HELLO 3 AUTH default x SETNAME me', 'GET a', 'CLIENT GETNAME', 'RESET', 'GET a'),
  );
  await bench.settle();
  const bytes = Buffer.concat(told.writes).toString('latin1');
  assert.match(
    bytes,
    /^-NOAUTH .*\r\n%7\r\n[^]*\r\n_\r\n\$2\r\nme\r\n\+RESET\r\n-NOAUTH Authentication required.\r\n$/,
  );
});

test('KEYS stops before its answer is too large', async () => {
  const bench = new RespBench({ limits: { maxKeysBytes: 1000 } });
  const told = bench.open();
  for (let i = 0; i < 20; i++) told.send('SET', `key${i}`, '');
  told.send('KEYS', 'key1*');
  told.send('KEYS', '*');
  await bench.settle();
  const replies = told.replies();
  assert.is((replies[20] as Tree[]).length, 12);
  assert.match(errorOf(replies[21]!), /use SCAN$/);
});

test('a cursor that nobody knows is an error', async () => {
  const bench = new RespBench();
  const told = bench.open();
  for (const cursor of ['7', '-1', '1e3', '9999999999999999999']) told.send('SCAN', cursor);
  await bench.settle();
  assert.equal(
    told.replies().map(errorOf),
    Array.from({ length: 4 }, () => 'ERR invalid cursor'),
  );
});

test('the clock: a key is gone when its time is over', async () => {
  const bench = new RespBench();
  const told = bench.open();
  told.session.receive(pipeline('SET a 1 PX 1500', 'PTTL a', 'TTL a'));
  await bench.settle();
  assert.equal(told.replies(), [ok, ':1500', ':2']);
  bench.nowMs += 1499;
  told.session.receive(pipeline('PTTL a', 'TTL a'));
  await bench.settle();
  assert.equal(told.replies(), [':1', ':0']);
  bench.nowMs += 1;
  told.session.receive(pipeline('PTTL a', 'GET a', 'DBSIZE'));
  await bench.settle();
  assert.equal(told.replies(), [':-2', null, ':0']);
});

test.run();

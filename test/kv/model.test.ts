/**
 * Anything that a key-value volume can be asked, in any order, comes out as it does of the model in memory: transactions
 * with conditions of every kind, reads while batches are under way, expiries, repeated requests, a new primary.
 */
import fc from 'fast-check';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import type { HoldfastError } from '../../src/base/errors.ts';
import { encodeResult } from '../../src/kv/codec.ts';
import type {
  Condition,
  Entry,
  Key,
  KvDone,
  RequestId,
  ScanPage,
  ScanRequest,
  Step,
  Transaction,
  TransactionResult,
} from '../../src/kv/operations.ts';
import type { PrimaryKv } from '../../src/kv/primary-kv.ts';
import { KvDisk, LIMITS, openKv } from '../support/kv-disk.ts';
import { MemoryKv } from '../support/memory-kv.ts';

const test = suite('the key-value volume and its model');

/** What a primary keeps of an answer, at the most. */
const KEPT_BYTES = 16_384;
/** A session has the answers of all but so many of its requests. */
const REPEATABLE = 4;

/** Of a key, what it has at that moment: else such conditions would hardly ever hold. */
type Wish = Condition | { key: Key; is: 'its version'; off: number } | { key: Key; is: 'its value' };

type Read = { do: 'get'; keys: Key[] } | { do: 'scan'; request: ScanRequest } | { do: 'size' };

type Action =
  | Read
  | { do: 'execute'; conditions: Wish[]; steps: Step[]; session: bigint | null }
  /** One of the last requests of that session, once more. */
  | { do: 'repeat'; session: bigint; back: number }
  | { do: 'disk'; turn: boolean; commits: number; applies: number; pick: number }
  | { do: 'time'; ms: number }
  /** Everything comes to its end. */
  | { do: 'settle' }
  /** ... and another primary begins with what is on the disk. */
  | { do: 'succeed' };

// --- what may be asked ----------------------------------------------------------------------------------------------------

const KEYS = ['', 'a', 'a\x00', 'ab', 'abc', 'b', 'b\xff', 'c'];
const anyKey = fc.constantFrom(...KEYS);
const bytesOf = (text: string): Uint8Array => Buffer.from(text, 'latin1');
const NUMBERS = ['0', '-1', '41', '9223372036854775807', '-9223372036854775808'];
const TEXTS = ['', 'x', '012', '-0', '9223372036854775808', 'some words'];
const anyValue = fc.oneof(
  { weight: 4, arbitrary: fc.constantFrom(...NUMBERS, ...TEXTS).map(bytesOf) },
  // Some of these fill a page of a scan.
  { weight: 2, arbitrary: fc.constantFrom('long', 'large').map((text) => bytesOf(text.repeat(8000))) },
);
const anyExpiry = fc.oneof(
  fc.constantFrom('none' as const, 'keep' as const),
  fc.record({ afterMs: fc.integer({ min: -10, max: 60 }) }),
  fc.record({ afterMs: fc.double({ min: 0, max: 60, noNaN: true }) }),
  // The clock begins at 1,000,000.
  fc.record({ atMs: fc.oneof(fc.integer({ min: -2, max: 2 }), fc.integer({ min: 999_990, max: 1_000_400 })) }),
);

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ type: fc.constant('get' as const), key: anyKey }),
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant('put' as const),
      key: anyKey,
      value: anyValue,
      expiry: anyExpiry,
      when: fc.constantFrom('always' as const, 'absent' as const, 'present' as const),
      previous: fc.boolean(),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('delete' as const), key: anyKey, previous: fc.boolean() }) },
  {
    weight: 2,
    arbitrary: fc.record({
      type: fc.constant('add' as const),
      key: anyKey,
      delta: fc.oneof(fc.bigInt({ min: -3n, max: 3n }), fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })),
    }),
  },
  { weight: 2, arbitrary: fc.record({ type: fc.constant('expire' as const), key: anyKey, expiry: anyExpiry }) },
);

const TOO_LONG = 'k'.repeat(LIMITS.maxKeyBytes + 1);
const anyWish: fc.Arbitrary<Wish> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ key: anyKey, is: fc.constantFrom('absent' as const, 'present' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({ key: anyKey, is: fc.constant('its version' as const), off: fc.constantFrom(0, 0, 0, 1) }),
  },
  { weight: 3, arbitrary: fc.record({ key: anyKey, is: fc.constant('its value' as const) }) },
  { weight: 1, arbitrary: fc.record({ key: anyKey, is: fc.constant('version' as const), version: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.record({ key: anyKey, is: fc.constant('value' as const), value: anyValue }) },
  { weight: 1, arbitrary: fc.constant<Wish>({ key: TOO_LONG, is: 'absent' }) },
);

const anySession = fc.constantFrom(1n, 2n);
const anyAction: fc.Arbitrary<Action> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('execute' as const),
      conditions: fc.oneof(fc.constant<Wish[]>([]), fc.array(anyWish, { maxLength: 2 })),
      steps: fc.array(anyStep, { maxLength: 4 }),
      session: fc.oneof(fc.constant(null), anySession),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('repeat' as const), session: anySession, back: fc.nat(REPEATABLE - 1) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('get' as const), keys: fc.array(anyKey, { minLength: 1, maxLength: 3 }) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('scan' as const),
      request: fc.record({
        prefix: fc.constantFrom('', 'a', 'ab', 'b', 'd'),
        from: fc.constantFrom('', 'a', 'ab', 'abc\x00', 'c'),
        end: fc.constantFrom(null, 'a', 'abc', 'b\xff', 'd'),
        limit: fc.constantFrom(1, 2, 3, 100),
        keysOnly: fc.boolean(),
      }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('size' as const) }) },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('disk' as const),
      turn: fc.boolean(),
      commits: fc.nat(2),
      applies: fc.nat(2),
      pick: fc.nat(2),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('time' as const), ms: fc.nat(40) }) },
  { weight: 1, arbitrary: fc.constantFrom<Action>({ do: 'settle' }, { do: 'succeed' }) },
);

// --- both of them ---------------------------------------------------------------------------------------------------------

/** To be compared and shown: bytes are text, long ones in short. */
function plain(answer: unknown): unknown {
  if (typeof answer === 'bigint') return `${answer}n`;
  if (typeof answer !== 'object' || answer === null) return answer;
  if (Array.isArray(answer)) return answer.map(plain);
  if (!(answer instanceof Uint8Array)) {
    return Object.fromEntries(Object.entries(answer).map(([name, value]) => [name, plain(value)]));
  }
  const text = Buffer.from(answer).toString('latin1');
  return text.length > 100 ? `${text.length} x ${text.slice(0, 5)}` : text;
}

/** As text: in it, the order of what is named does not count. */
const textOf = (answer: unknown): string => JSON.stringify(answer, sortedFields);

function sortedFields(_name: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}

const answerOf = (error: HoldfastError | null, result: unknown): unknown =>
  error === null ? plain(result) : error.code;

interface Asked {
  id: RequestId;
  transaction: Transaction;
  result: TransactionResult;
}

/** A read that is not answered: what it may be answered, each from the moment that it was asked. */
interface Open {
  read: Read;
  allowed: unknown[];
}

class Both {
  readonly disk: KvDisk = new KvDisk(12 * 256);
  kv!: PrimaryKv;
  readonly model: MemoryKv = new MemoryKv({
    now: () => this.disk.nowMs,
    later: (work) => work(),
    limits: LIMITS,
    expiry: 'by tick',
  });
  private readonly reads: Set<Open> = new Set();
  private readonly asked: Map<bigint, Asked[]> = new Map();
  private readonly requests: Map<bigint, number> = new Map();
  /** What came out otherwise. */
  readonly wrong: string[] = [];
  unanswered = 0;

  async start(): Promise<this> {
    await this.disk.backup.build(this.disk);
    this.kv = await openKv(this.disk);
    return this;
  }

  private compare(what: object, real: unknown, allowed: unknown[]): void {
    const text = textOf(real);
    const expected = allowed.map(textOf);
    if (!expected.includes(text)) this.wrong.push(`${textOf(plain(what))}: ${text}, not ${expected.join(', or ')}`);
  }

  private ofModel(read: Read): unknown {
    let told: unknown;
    readOf(this.model, read, (error, result) => (told = answerOf(error, result)));
    return told;
  }

  /** The model has changed: what is read may be of then, too. */
  private changed(): void {
    for (const { read, allowed } of this.reads) allowed.push(this.ofModel(read));
  }

  read(read: Read): void {
    const open: Open = { read, allowed: [this.ofModel(read)] };
    this.reads.add(open);
    this.unanswered++;
    readOf(this.kv, read, (error, result) => {
      this.unanswered--;
      this.reads.delete(open);
      this.compare(read, answerOf(error, result), open.allowed);
    });
  }

  private granted(wish: Wish): Condition {
    if (wish.is !== 'its version' && wish.is !== 'its value') return wish;
    const { key } = wish;
    let entry: Entry | null = null;
    this.model.get([key], (_error, found) => (entry = found![0]!));
    const { version, value } = (entry as Entry | null) ?? { version: 0, value: bytesOf('') };
    return wish.is === 'its value'
      ? { key, is: 'value', value: value! }
      : { key, is: 'version', version: Math.max(0, version - wish.off) };
  }

  execute({ conditions, steps, session }: Action & { do: 'execute' }): void {
    const transaction = { conditions: conditions.map((wish) => this.granted(wish)), steps };
    let id: RequestId | null = null;
    if (session !== null) {
      const request = (this.requests.get(session) ?? 0) + 1;
      this.requests.set(session, request);
      id = { session, request, floor: Math.max(1, request - REPEATABLE), since: 0 };
    }
    const before = this.model.info().version;
    let expected: unknown;
    this.model.execute(transaction, null, (error, result) => {
      expected = answerOf(error, result);
      if (id === null || error !== null || result!.version === before) return;
      const asked = this.asked.get(id.session) ?? [];
      asked.push({ id, transaction, result: result! });
      this.asked.set(id.session, asked);
    });
    this.unanswered++;
    this.kv.execute(transaction, id, (error, result) => {
      this.unanswered--;
      this.compare(transaction, answerOf(error, result), [expected]);
    });
    this.changed();
  }

  /** Whoever repeats one that changed something is told what it was told. */
  repeat(session: bigint, back: number): void {
    const newest = this.requests.get(session) ?? 0;
    const one = (this.asked.get(session) ?? []).find(({ id }) => id.request === newest - back);
    if (one === undefined) return;
    const allowed = [answerOf(null, one.result)];
    if (encodeResult(one.result).length > KEPT_BYTES) allowed.push('OUTCOME_UNKNOWN');
    this.unanswered++;
    this.kv.execute(one.transaction, one.id, (error, result) => {
      this.unanswered--;
      this.compare({ repeated: one.id.request, ...one.transaction }, answerOf(error, result), allowed);
    });
  }

  time(ms: number): void {
    this.disk.nowMs += ms;
    this.kv.tick();
    this.model.tick();
    this.changed();
  }

  async succeed(): Promise<void> {
    await this.disk.settle();
    this.disk.lose();
    this.kv = await openKv(this.disk);
  }

  async act(action: Action): Promise<void> {
    switch (action.do) {
      case 'execute':
        this.execute(action);
        break;
      case 'repeat':
        this.repeat(action.session, action.back);
        break;
      case 'time':
        this.time(action.ms);
        break;
      case 'settle':
        await this.disk.settle();
        break;
      case 'succeed':
        await this.succeed();
        break;
      case 'disk':
        if (action.turn) this.disk.turn();
        for (let i = 0; i < action.commits; i++) this.disk.commit();
        for (let i = 0; i < action.applies; i++) this.disk.apply(action.pick);
        await Promise.resolve();
        break;
      default:
        this.read(action);
    }
  }
}

function readOf(volume: Pick<PrimaryKv, 'get' | 'scan' | 'size'>, read: Read, done: KvDone<unknown>): void {
  if (read.do === 'get') volume.get(read.keys, done);
  else if (read.do === 'scan') volume.scan(read.request, done);
  else volume.size(done);
}

/** All of it, page by page. */
async function whole(both: Both, volume: Pick<PrimaryKv, 'scan'>): Promise<unknown[]> {
  const all: unknown[] = [];
  for (let from: Key | null = ''; from !== null;) {
    const request: ScanRequest = { prefix: '', from, end: null, limit: 3, keysOnly: false };
    const answer = new Promise<ScanPage>((resolve) => volume.scan(request, (_error, page) => resolve(page!)));
    await both.disk.settle();
    const page: ScanPage = await answer;
    all.push(answerOf(null, page));
    from = page.next;
  }
  return all;
}

test('random transactions, reads, expiries and successions', async () => {
  const property = fc.asyncProperty(fc.array(anyAction, { minLength: 20, maxLength: 120 }), async (actions) => {
    const both = await new Both().start();
    for (const action of actions) {
      await both.act(action);
      assert.equal(both.wrong, []);
    }
    await both.disk.settle();
    assert.equal(both.wrong, []);
    assert.is(both.unanswered, 0);
    assert.equal(await whole(both, both.kv), await whole(both, both.model));
    assert.is(both.kv.info().version, both.model.info().version);
    await both.succeed();
    assert.equal(await whole(both, both.kv), await whole(both, both.model), 'by its successor');
  });
  await fc.assert(property, { numRuns: 60 });
});

test.run();

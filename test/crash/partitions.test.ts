/**
 * Nodes that are cut off by `holdfast fault partition`, on a cluster of real processes under load; and what the command
 * refuses. What a client of the cut-off primary is told is checked as a history: every operation could have happened one
 * after another, and nothing was acknowledged by the old primary once the new one had acknowledged something.
 */
// deadline: 300 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { type BlockOp, violation } from '../simulation/linearizable.ts';
import { TestCluster } from '../support/cluster.ts';
import { RawClient } from '../support/raw-client.ts';
import { until } from '../support/until.ts';
import { pause } from './load.ts';
import { Matrix, VOLUME, other } from './matrix.ts';

const BLOCK = 4096;
/** A block that neither lanes nor shots write. */
const OWN_BYTES = 8 * 1024 * 1024;

function blockOf(value: number): Uint8Array {
  const block = new Uint8Array(BLOCK);
  new DataView(block.buffer).setUint32(0, value);
  return block;
}

const valueOf = (block: Uint8Array): number => new DataView(block.buffer, block.byteOffset).getUint32(0);

/** What several clients have done with one block. */
class History {
  readonly ops: BlockOp[] = [];
  private value = 0;
  private stopped = false;
  private readonly running: Array<Promise<void>> = [];

  /** Writes and reads in turn until it is stopped; a failed operation has unknown outcome. */
  run(who: string, write: (value: Uint8Array) => Promise<void>, read: () => Promise<Uint8Array>): void {
    const turns = async (): Promise<void> => {
      while (!this.stopped) {
        await this.one(who, 'write', async (op) => {
          op.value = ++this.value;
          await write(blockOf(op.value));
        });
        await this.one(who, 'read', async (op) => {
          op.value = valueOf(await read());
        });
      }
    };
    this.running.push(turns());
  }

  private async one(who: string, kind: 'read' | 'write', work: (op: BlockOp) => Promise<void>): Promise<void> {
    const op: BlockOp = { who, kind, value: 0, calledMs: performance.now(), answeredMs: Infinity };
    // A write of unknown outcome belongs to the history as well.
    const done = work(op);
    this.ops.push(op);
    await done.then(
      () => (op.answeredMs = performance.now()),
      () => pause(20),
    );
  }

  answered(who: string, sinceMs = -Infinity): BlockOp[] {
    return this.ops.filter((op) => op.who === who && op.answeredMs < Infinity && op.calledMs > sinceMs);
  }

  async end(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.running);
  }
}

/** One connection to one node, and never to another: what it is told, that node has said. */
function pinned(address: string, session: bigint): Promise<RawClient> {
  return RawClient.attached(Number(address.split(':').at(-1)), session, 1, null, VOLUME);
}

async function withMatrix(work: (matrix: Matrix) => Promise<void>): Promise<void> {
  const matrix = await Matrix.start();
  try {
    await work(matrix);
  } catch (error) {
    console.log(matrix.cluster.log().split('\n').slice(-120).join('\n'));
    throw error;
  } finally {
    await matrix.stop();
  }
}

/** The node is cut off; the work is done meanwhile; then all is in sync again. */
async function cutOff(matrix: Matrix, node: string, args: string[], work: () => Promise<void>): Promise<void> {
  const { cluster } = matrix;
  await cluster.must('fault', 'partition', '--node', node, ...args);
  await work();
  await cluster.must('fault', 'heal', '--node', node);
  await matrix.untilSafe();
  await matrix.load.more(50);
}

const test = suite('partitions');

test('the primary is cut off from its backup and the coordinator: it acknowledges nothing any more', () =>
  withMatrix(async (matrix) => {
    const { cluster } = matrix;
    for (let round = 0; round < 2; round++) {
      const old = await matrix.primary();
      const raw = await pinned(cluster.slot(old).address, 4711n + BigInt(round));
      const everywhere = await connect(cluster.url(VOLUME), { retryMs: Infinity });
      // A history begins with an empty block.
      await everywhere.write(OWN_BYTES, blockOf(0));
      const history = new History();
      const told = async (request: Parameters<RawClient['ask']>[0], bytes: Uint8Array | null): Promise<Uint8Array> => {
        const { error, payload } = await raw.ask({ offset: OWN_BYTES, count: BLOCK, ...request }, bytes);
        if (error !== null) throw error;
        return payload!;
      };
      history.run(
        'old',
        async (block) => void (await told({ type: MESSAGES.WRITE.number }, block)),
        () => told({ type: MESSAGES.READ.number }, null),
      );
      await until(() => history.answered('old').length > 20, 'the old primary to answer');
      await cutOff(matrix, old, ['--from', `${other(old)},coordinator`], async () => {
        await matrix.untilPrimary(other(old));
        history.run(
          'new',
          (block) => everywhere.write(OWN_BYTES, block),
          () => everywhere.read(OWN_BYTES, BLOCK),
        );
        await until(() => history.answered('new').length > 100, 'the new primary to answer');
        await matrix.load.more(100);
        assert.not(raw.socket.closed, 'a cut closes no connection');
      });
      await history.end();
      assert.is(violation(history.ops), null);
      const since = Math.min(...history.answered('new').map(({ answeredMs }) => answeredMs));
      assert.equal(history.answered('old', since), [], 'answered by the one that was removed');
      assert.is(await matrix.primary(), other(old));
      // The old one has closed its stream: nothing of that was heard.
      const left = cluster.slot(other(old)).running!.printed();
      assert.match(left, /nothing was heard for \d+ ms/);
      raw.socket.destroy();
      await everywhere.close();
    }
    await matrix.finish();
  }));

test('other cuts: the backup with the coordinator away, one way only, clients', () =>
  withMatrix(async (matrix) => {
    const { cluster, load } = matrix;
    const stays = await matrix.primary();
    // The coordinator is on the primary's side: the backup is left behind.
    await cutOff(matrix, other(stays), ['--from', `${stays},coordinator`], async () => {
      await load.more(150);
      const { volumes } = await matrix.look();
      assert.is(volumes[0]!.primary, stays);
      assert.is(volumes[0]!.verdict, 'degraded');
    });
    assert.is(await matrix.primary(), stays, 'the one that was left behind has not taken over');
    // Streams that live on, and carry one way: who is right is decided by the register.
    for (const way of ['in', 'out']) {
      const name = await matrix.primary();
      await cutOff(matrix, name, ['--from', other(name), '--way', way], async () => {
        await matrix.until(({ volumes: [one] }) => one!.verdict === 'degraded', 'one of them to be left behind');
        await load.more(150);
      });
    }
    // The coordinator's answers do not come: what is asked of it has unknown outcome.
    const name = await matrix.primary();
    await cutOff(matrix, name, ['--from', 'coordinator', '--way', 'in'], () => load.more(150));
    // Clients wait, and go on when the cut is over; nobody was told to take over.
    const primary = await matrix.primary();
    await cluster.must('fault', 'partition', '--node', primary, '--from', 'clients', '--for-ms', '1500');
    await load.more(100);
    assert.is(await matrix.primary(), primary);
    assert.equal(JSON.parse(await cluster.must('fault', 'status', '--node', primary, '--json')).cut, []);
    await matrix.finish();
  }));

test('a node stops for a while and wakes by itself, and ends itself', () =>
  withMatrix(async (matrix) => {
    const { cluster, load } = matrix;
    const name = await matrix.primary();
    await cluster.must('fault', 'pause', '--ms', '3000', '--node', name);
    await matrix.untilPrimary(other(name));
    await load.more(50);
    await matrix.untilSafe();
    assert.is(cluster.slot(name).running!.child.exitCode, null);
    await cluster.must('fault', 'kill', '--node', name);
    assert.is((await cluster.ended(name)).signal, 'SIGKILL');
    await load.more(50);
    await cluster.restart(name);
    await matrix.finish();
  }));

test('what is refused, and how', async () => {
  const cluster = await TestCluster.start(['a']);
  try {
    const refusal = async (...args: string[]): Promise<string> => {
      const { code, stderr } = await cluster.cli('fault', ...args);
      assert.is(code, 1, `fault ${args.join(' ')}`);
      return stderr;
    };
    assert.match(await refusal('kill', '--node', 'a'), /takes no faults.*--enable-faults/);
    await cluster.kill('a');
    cluster.slot('a').env = { HOLDFAST_CRASH_AT: 'nowhere:at-all' };
    const started = await cluster.restart('a', '--enable-faults').catch((error: Error) => error.message);
    assert.match(String(started), /no point to crash at/);
    // Without the flag nothing is armed.
    cluster.slot('a').env = { HOLDFAST_CRASH_AT: 'promote:won' };
    await cluster.restart('a');
    await cluster.create('v', '1MiB', 1);
    await cluster.untilServed('v');
    await cluster.kill('a', 'SIGTERM');
    cluster.slot('a').env = {};
    await cluster.restart('a', '--enable-faults');
    assert.match(await refusal('crash', 'nowhere', '--node', 'a'), /There are: write:received,.*fault points/);
    assert.match(
      await refusal('crash', 'write:sent', '--volume', 'w', '--node', 'a'),
      /"w" is no volume.*There are: v/,
    );
    assert.match(await refusal('crash', 'write:sent', '--count', '0', '--node', 'a'), /count is not a whole number/);
    assert.match(await refusal('partition', '--from', 'z', '--node', 'a'), /"z" is no node/);
    assert.match(await refusal('partition', '--from', 'coordinator', '--way', 'up', '--node', 'a'), /one of in, out/);
    assert.match(await refusal('partition', '--from', 'clients', '--node', 'a'), /--for-ms/);
    assert.match(await refusal('pause', '--ms', '200000', '--node', 'a'), /from 10 to 120000/);
    assert.match(await refusal('pause', '--ms', 'soon', '--node', 'a'), /no whole number/);
    assert.match(await refusal('heal', '--node', 'z'), /the coordinator knows: a.*--address/);
    assert.match(await refusal('heal'), /--node NAME/);
    const armed = await cluster.must('fault', 'crash', 'write:sent', '--count', '7', '--node', 'a', '--json');
    assert.equal(JSON.parse(armed).armed, [{ point: 'write:sent', volume: '', left: 7 }]);
    assert.match(await cluster.must('fault', 'status', '--address', cluster.slot('a').address), /write:sent.*number 7/);
    assert.match(await cluster.must('fault', 'points'), /target:copied/);
  } finally {
    await cluster.stop();
  }
});

test.run();

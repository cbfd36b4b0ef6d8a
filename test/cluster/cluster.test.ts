/**
 * A cluster of real processes: the primary is killed under load, again and again; a node stops in good order; replicas
 * come and go. The callers see a pause and no error; in the end the replicas are equal, byte for byte.
 */
// deadline: 400 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { pause } from '../../src/cli/cluster.ts';
import { type Volume, connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { Random } from '../support/random.ts';

const LANES = 6;
const LANE_BYTES = 512 * 1024;
const ROUNDS = 2;
/** Between two operations of a lane while nobody waits for more of them: the nodes need the processor for what is done to them. */
const UNHURRIED_MS = 6;

/** Clients that each have a part of the volume for themselves, and know what must be in it. */
class Load {
  operations = 0;
  private stopped = false;
  private hurried = false;
  private readonly shadows: Uint8Array[] = Array.from({ length: LANES }, () => new Uint8Array(LANE_BYTES));
  private readonly lanes: Array<Promise<void>>;
  private readonly volume: Volume;

  constructor(volume: Volume) {
    this.volume = volume;
    this.lanes = this.shadows.map((shadow, lane) => this.run(shadow, lane));
  }

  private async run(shadow: Uint8Array, lane: number): Promise<void> {
    const random = new Random(lane + 1);
    const base = lane * LANE_BYTES;
    while (!this.stopped) {
      if (!this.hurried) await pause(UNHURRIED_MS);
      const length = 1 + random.below(20_000);
      const at = random.below(LANE_BYTES - length);
      if (random.chance(0.6)) {
        const bytes = random.bytes(length);
        await this.volume.write(base + at, bytes);
        shadow.set(bytes, at);
      } else if (random.chance(0.2)) {
        await this.volume.zero(base + at, length);
        shadow.fill(0, at, at + length);
      } else {
        const bytes = await this.volume.read(base + at, length);
        assert.is(Buffer.compare(bytes, shadow.subarray(at, at + length)), 0, `lane ${lane} at ${at}`);
      }
      this.operations++;
    }
  }

  /** Waits until so many more operations are answered. */
  async more(count: number): Promise<void> {
    const goal = this.operations + count;
    const failed = Promise.all(this.lanes).then(() => {});
    this.hurried = true;
    while (this.operations < goal) await Promise.race([failed, pause(5)]);
    this.hurried = false;
  }

  /** Ends it. @throws what any of the clients met, or what was read at the end and is wrong */
  async end(): Promise<void> {
    this.stopped = true;
    await Promise.all(this.lanes);
    await this.check(this.volume);
  }

  async check(volume: Volume): Promise<void> {
    for (const [lane, shadow] of this.shadows.entries()) {
      const bytes = await volume.read(lane * LANE_BYTES, LANE_BYTES);
      assert.is(Buffer.compare(bytes, shadow), 0, `lane ${lane}`);
    }
  }
}

const other = (name: string): string => (name === 'a' ? 'b' : 'a');

async function withCluster(names: string[], work: (cluster: TestCluster) => Promise<void>): Promise<void> {
  const cluster = await TestCluster.start(names);
  try {
    await work(cluster);
  } catch (error) {
    console.log(cluster.log().split('\n').slice(-120).join('\n'));
    throw error;
  } finally {
    await cluster.stop();
  }
}

const test = suite('cluster');

test(`${ROUNDS} times the primary is killed under load, and comes back`, () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const volume = await connect(cluster.url('v'));
    const load = new Load(volume);
    for (let round = 0; round < ROUNDS; round++) {
      const primary = await cluster.primary('v');
      await load.more(200);
      await cluster.kill(primary);
      await load.more(200);
      assert.is(await cluster.primary('v'), other(primary), 'the other one is primary');
      await cluster.restart(primary);
      await cluster.untilSafe();
      await load.more(100);
    }
    await load.end();
    await volume.close();
    assert.equal(Object.values(await cluster.stopNodes()), [0, 0], 'exit codes');
    await cluster.compare('v', ['a', 'b']);
  }));

test('a backup that is killed is left behind and brought in again', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const volume = await connect(cluster.url('v'));
    const load = new Load(volume);
    const backup = other(await cluster.primary('v'));
    await load.more(100);
    await cluster.kill(backup);
    await load.more(300);
    const degraded = await cluster.until(({ verdict }) => verdict === 'degraded', 'the cluster to be degraded');
    const member = degraded.volumes[0]!.members.find(({ node }) => node === backup)!;
    assert.is(member.state, 'unreachable');
    assert.ok(member.dirtyBytes! > 0, 'what it lacks is known');
    await cluster.restart(backup);
    await cluster.untilSafe();
    await load.end();
    await volume.close();
    await cluster.stopNodes();
    await cluster.compare('v', ['a', 'b']);
  }));

test('a primary that stops in good order hands over', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const volume = await connect(cluster.url('v'));
    const load = new Load(volume);
    const primary = await cluster.primary('v');
    await load.more(100);
    assert.is(await cluster.kill(primary, 'SIGTERM'), 0, cluster.log());
    await load.more(100);
    assert.is(await cluster.primary('v'), other(primary));
    await load.end();
    await volume.close();
  }));

test('a third replica comes in under load, the primary goes out, the rest are equal', () =>
  withCluster(['a', 'b', 'c'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    const created = await cluster.untilSafe();
    const first = created.volumes[0]!.members.map(({ node }) => node);
    const third = ['a', 'b', 'c'].find((node) => !first.includes(node))!;
    const volume = await connect(cluster.url('v'));
    const load = new Load(volume);
    await load.more(100);
    await cluster.must('volume', 'add-replica', 'v');
    const three = await cluster.untilSafe();
    assert.equal(three.volumes[0]!.members.map(({ node }) => node).sort(), ['a', 'b', 'c']);
    assert.ok(three.volumes[0]!.members.some(({ node, state }) => node === third && state === 'in-sync'));
    await load.more(100);
    // A node that has no replica any more says so, and a client may take that for the last word.
    await load.end();
    await volume.close();
    const primary = await cluster.primary('v');
    await cluster.must('volume', 'remove-replica', 'v', '--node', primary);
    const two = await cluster.untilSafe();
    const left = two.volumes[0]!.members.map(({ node }) => node).sort();
    assert.equal(
      left,
      ['a', 'b', 'c'].filter((node) => node !== primary),
    );
    const rest = await connect(`holdfast://${left.map((node) => cluster.slot(node).address).join(',')}/v`);
    await load.check(rest);
    await rest.write(0, Buffer.from('after it'));
    await rest.close();
    await cluster.stopNodes();
    await cluster.compare('v', left);
  }));

test('what the commands refuse, and what they undo', () =>
  withCluster(['a', 'b'], async (cluster) => {
    const few = await cluster.cli('volume', 'create', 'v', '--size', '16MiB', '--replicas', '3');
    assert.is(few.code, 1);
    assert.match(few.stderr, /3 nodes are needed/);
    const huge = await cluster.cli('volume', 'create', 'v', '--size', '16TiB', '--replicas', '2');
    assert.is(huge.code, 1);
    assert.match(huge.stderr, /no space left.*what was made is undone/);
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const twice = await cluster.cli('volume', 'create', 'v', '--size', '16MiB', '--replicas', '2');
    assert.match(twice.stderr, /it exists already/);
    const forced = await cluster.cli('volume', 'promote', 'v', '--node', 'a', '--force', '--yes');
    assert.match(forced.stderr, /is in sync and answers/);
    const unasked = await cluster.cli('volume', 'delete', 'v');
    assert.match(unasked.stderr, /add --yes/);
    await cluster.must('volume', 'delete', 'v', '--yes');
    assert.match(await cluster.must('volume', 'list'), /no volumes/);
    // The names are free again: the folders are gone.
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    // A name alone, as with `create`: the environment says which cluster.
    assert.match(await cluster.must('volume', 'info', 'v'), /inSync +[ab], [ab]\n/);
  }));

test('the last in-sync replica is lost: the other one is promoted by force', () =>
  withCluster(['a', 'b'], async (cluster) => {
    await cluster.create('v', '16MiB', 2);
    await cluster.untilSafe();
    const volume = await connect(cluster.url('v'));
    await volume.write(0, Buffer.from('both have this'));
    await volume.close();
    const lost = await cluster.primary('v');
    const rest = other(lost);
    await cluster.kill(rest);
    await cluster.until(({ volumes }) => volumes[0]!.why.includes(rest), `${rest} to be missed`);
    const alone = await connect(cluster.url('v'));
    await alone.write(0, Buffer.from('one has this, x'));
    await alone.close();
    await cluster.kill(lost);
    await cluster.restart(rest);
    const refused = await cluster.cli('volume', 'promote', 'v', '--node', rest, '--yes');
    assert.match(refused.stderr, /add --force/);
    const done = await cluster.cli('volume', 'promote', 'v', '--node', rest, '--force', '--yes');
    assert.is(done.code, 0, done.stderr);
    assert.match(done.stderr, /LOST/);
    await cluster.untilServed('v');
    const after = await connect(cluster.url('v'));
    assert.is(Buffer.from(await after.read(0, 14)).toString(), 'both have this');
    await after.close();
    // The one that was lost comes back as a target, and its newer content goes.
    await cluster.restart(lost);
    await cluster.untilSafe();
    await cluster.stopNodes();
    await cluster.compare('v', ['a', 'b']);
  }));

test.run();

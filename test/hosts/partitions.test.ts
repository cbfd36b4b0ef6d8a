/**
 * A cluster on hosts of their own, with real packets lost between them: two nodes, the coordinator, two clients. Whatever
 * is cut from whatever, in one direction or both, what the clients were answered fits one volume (their histories are
 * linearizable), and after the cut the replicas are equal, byte for byte.
 */
// deadline: 200 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ClusterView } from '../../src/cli/cluster-status.ts';
import { TestCluster } from '../support/cluster.ts';
import { HostClient, contradiction } from '../support/host-client.ts';
import { Hosts, hostsMissing } from '../support/hosts.ts';
import { until } from '../support/until.ts';

const missing = hostsMissing();
if (missing !== null) console.log(`# skip: ${missing}`);
else await main();

interface Scene {
  hosts: Hosts;
  cluster: TestCluster;
  primary: string;
  backup: string;
  /** One client is to be cut off with one of the nodes, the other one is not. */
  one: HostClient;
  other: HostClient;
}

/** Each scene has blocks that nobody has written before. */
const BLOCKS_OF_SCENE = 64;
const another = (name: string): string => (name === 'a' ? 'b' : 'a');
const inSync = ({ volumes }: ClusterView): string[] => {
  const members = volumes[0]?.members ?? [];
  return members.filter(({ state }) => state === 'in-sync').map(({ node }) => node);
};

async function main(): Promise<void> {
  const hosts = new Hosts(['a', 'b', 'coordinator', 'operator', 'one', 'other']);
  const cluster = await TestCluster.start(['a', 'b'], { hosts });
  await cluster.create('v', '16MiB', 2);
  await cluster.untilSafe();
  const test = suite('hosts, partitions');
  test.after(async () => {
    await cluster.stop();
    hosts.remove();
  });

  let scenes = 0;

  /** Both clients are at work, reading from the primary or from any replica; after it all is whole again. */
  async function scene(reads: 'primary' | 'any', work: (scene: Scene) => Promise<void>): Promise<void> {
    const view = await cluster.untilSafe();
    const { primary } = view.volumes[0]!;
    const firstBlock = BLOCKS_OF_SCENE * scenes++;
    const client = (host: string): HostClient => new HostClient(hosts, host, cluster.url('v'), reads, firstBlock);
    const [one, other] = [client('one'), client('other')];
    try {
      await one.more(100);
      await other.more(100);
      await work({ hosts, cluster, primary, backup: another(primary), one, other });
      hosts.heal();
      await cluster.untilSafe();
      await one.more(100);
      await other.more(100);
      assert.equal([await one.stop(), await other.stop()], [0, 0], 'the clients met no error');
      assert.is(contradiction([one, other]), null);
      await cluster.stopNodes();
      await cluster.compare('v', ['a', 'b']);
      for (const name of ['a', 'b']) await cluster.restart(name);
    } catch (error) {
      console.log(cluster.log().split('\n').slice(-80).join('\n'));
      throw error;
    } finally {
      hosts.heal();
      await Promise.all([one.kill(), other.kill()]);
    }
  }

  /** Goes on with answers to `other`, during which `one` must get none. */
  async function silent(one: HostClient, other: HostClient): Promise<void> {
    await other.more(1);
    const before = one.answers;
    await other.more(400);
    assert.is(one.answers, before, 'the cut-off side was answered');
  }

  test('the primary is cut off from everybody but a client: it answers nothing once another one does', () =>
    scene('any', async ({ primary, backup, one, other }) => {
      hosts.part([primary, 'one'], [backup, 'coordinator', 'other']);
      await cluster.until(({ volumes }) => volumes[0]?.primary === backup, 'the failover');
      await silent(one, other);
      const { volumes } = await cluster.status();
      assert.is(volumes[0]!.primary, backup);
    }));

  test('the backup is cut off from everybody but a client: it is taken out, writes go on', () =>
    scene('any', async ({ primary, backup, one, other }) => {
      const { epoch } = (await cluster.status()).volumes[0]!;
      hosts.part([backup, 'one'], [primary, 'coordinator', 'other']);
      await cluster.until((view) => inSync(view).join() === primary, 'the backup to be taken out');
      await silent(one, other);
      const { volumes } = await cluster.status();
      assert.is(volumes[0]!.primary, primary);
      assert.is(volumes[0]!.epoch, epoch, 'the same tenure');
    }));

  for (const [title, direction] of [
    ['what the primary sends to the backup is lost, and only that', (p: string, b: string) => [p, b]],
    ['what the backup sends to the primary is lost, and only that', (p: string, b: string) => [b, p]],
  ] as const) {
    test(`${title}: one of them goes on`, () =>
      scene('any', async ({ primary, backup, one, other }) => {
        const [from, to] = direction(primary, backup) as [string, string];
        hosts.cut(from, to);
        await cluster.until((view) => inSync(view).length === 1, 'one of them to be taken out');
        await one.more(200);
        await other.more(200);
      }));
  }

  test('the primary is cut off from the coordinator only: all goes on, nobody takes over', () =>
    scene('any', async ({ primary, backup, one, other }) => {
      const { epoch } = (await cluster.status()).volumes[0]!;
      const unanswered = (): number => cluster.log().split('the coordinator does not answer').length;
      const before = unanswered();
      hosts.part([primary], ['coordinator']);
      await until(() => unanswered() > before, 'the primary to miss the coordinator');
      await one.more(1000);
      await other.more(1000);
      const { volumes } = await cluster.status();
      assert.is(volumes[0]!.epoch, epoch);
      assert.is(volumes[0]!.primary, primary);
      assert.ok(inSync(await cluster.status()).includes(backup));
    }));

  test('a client is cut off from the primary only: it waits, and nobody takes over', () =>
    scene('primary', async ({ primary, one, other }) => {
      const { epoch } = (await cluster.status()).volumes[0]!;
      hosts.part([primary], ['one']);
      await silent(one, other);
      const { volumes } = await cluster.status();
      assert.is(volumes[0]!.epoch, epoch);
      assert.is(volumes[0]!.primary, primary);
    }));

  test.run();
}

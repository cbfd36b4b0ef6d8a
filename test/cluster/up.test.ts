/** `holdfast up`, what `npm start` runs: one command, a cluster; a process that is killed comes back; Ctrl-C ends all. */
// deadline: 180 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { ClusterView } from '../../src/cli/cluster-status.ts';
import { connect } from '../../src/client/index.ts';
import { basePort } from '../support/base-port.ts';
import { holdfast, spawnEvents, temporaryFolder } from '../support/server-process.ts';

const test = suite('up');

const lives = (pid: number): boolean => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

test('a cluster by one command; a killed node is started again and brought in; all end together', async () => {
  const base = await basePort();
  const args = ['up', '--dir', temporaryFolder(), '--size', '16MiB', '--base-port', String(base)];
  const run = spawnEvents(args);
  const { url, http, coordinator, primary, pids } = (await run.event('up')) as {
    url: string;
    http: string[];
    coordinator: string;
    primary: string;
    pids: Record<string, number>;
  };
  const status = async (): Promise<ClusterView> => {
    const { stdout } = await holdfast(['status', '--json', '--coordinator', coordinator]);
    return JSON.parse(stdout.toString()) as ClusterView;
  };
  for (const page of http) assert.is((await fetch(`${page}readyz`)).status, 200, page);
  const volume = await connect(url);
  await volume.write(0, Buffer.from('kept'));
  process.kill(pids[primary]!, 'SIGKILL');
  assert.is(Buffer.from(await volume.read(0, 4)).toString(), 'kept');
  const ended = await run.event('ended');
  assert.is(ended['name'], primary);
  const restarted = await run.event('restarted');
  assert.is(restarted['name'], primary);
  let view = await status();
  while (view.verdict !== 'safe') view = await status();
  await volume.close();
  const all = [...view.nodes.map(({ pid }) => pid!), pids[primary]!];
  run.child.kill('SIGINT');
  assert.equal(await run.exited, { code: 0, signal: null }, run.printed());
  for (const pid of all) assert.not(lives(pid), `process ${pid} is left`);
});

test.run();

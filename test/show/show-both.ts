/**
 * `npm run show:both`: both nodes are killed at once while clients write, again and again, and come back in either order.
 *
 * Shown is: what was acknowledged is there each time, no client meets an error, and at the end the images are equal.
 */
import { Command } from 'commander';
import { connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { Ledger } from './ledger.ts';
import { type Cell, note, pause, scratch, show } from './support.ts';

const CLIENTS = 8;
const BLOCKS_EACH = 512;
const VOLUME = 'v';
/** The first one that returns is left alone for so long: does it serve what only the other may have? */
const ALONE_MS = [0, 1500];

interface Options {
  times: string;
  json?: boolean;
}

async function main({ times, json }: Options): Promise<void> {
  const { environment } = scratch();
  const cluster = await TestCluster.start(['a', 'b']);
  const failures: string[] = [];
  const rows: Cell[][] = [];
  await cluster.create(VOLUME, '64MiB', 2);
  await cluster.untilSafe();
  const url = cluster.url(VOLUME);
  const ledger = await Ledger.start(url, CLIENTS, { baseBytes: 0, blocksEach: BLOCKS_EACH });
  try {
    for (let time = 1; time <= Number(times); time++) {
      const { volumes } = await cluster.untilSafe();
      const { primary } = volumes[0]!;
      const backup = primary === 'a' ? 'b' : 'a';
      await ledger.more(500);
      const before = ledger.acknowledged;
      const killedMs = Date.now();
      await Promise.all([cluster.kill(primary), cluster.kill(backup)]);
      // What each client has under way is repeated and answered; nothing covers up what was lost.
      ledger.hold();
      // Either order, each with the second one right behind the first, and a while later.
      const order = time % 2 === 1 ? [primary, backup] : [backup, primary];
      const aloneMs = ALONE_MS[Math.floor((time - 1) / 2) % 2]!;
      await cluster.restart(order[0]!);
      await pause(aloneMs);
      await cluster.restart(order[1]!);
      const after = await cluster.untilServed(VOLUME);
      await ledger.allHeld();
      const gap = ledger.longestGap(killedMs);
      const reader = await connect(url);
      const wrong = await ledger.check(reader);
      await reader.close();
      ledger.release();
      failures.push(...wrong.map((text) => `time ${time}: ${text}`));
      const first = order[0] === primary ? 'the primary' : 'the backup';
      const now = after.volumes[0]!.primary;
      rows.push([time, first, aloneMs, now, before, gap.toMs - gap.fromMs, wrong.length]);
      note(`time ${time}: ${first} came back first, ${now} is primary; ${wrong.length} wrong`);
    }
  } catch (error) {
    failures.push((error as Error).message);
  }
  await ledger.stop();
  failures.push(...ledger.errors);
  try {
    await cluster.untilSafe();
    const reader = await connect(url);
    failures.push(...(await ledger.check(reader)));
    await reader.close();
    await ledger.close();
    const codes = await cluster.stopNodes();
    for (const [node, code] of Object.entries(codes)) if (code !== 0) failures.push(`${node} ended with ${code}`);
    await cluster.compare(VOLUME, ['a', 'b']);
  } catch (error) {
    failures.push((error as Error).message);
  }
  if (failures.length > 0) note(cluster.log().split('\n').slice(-60).join('\n'));
  await cluster.stop();
  const head = [
    'time',
    'first to return',
    'alone for ms',
    'primary after',
    'acknowledged before',
    'longest pause ms',
    'wrong',
  ];
  const notes = [
    `${rows.length} times both killed at once under ${CLIENTS} clients; ${ledger.acknowledged} writes acknowledged in all`,
    'the pause contains the start of two processes',
  ];
  const figures = { head, rows, acknowledged: ledger.acknowledged };
  show({ title: 'both nodes killed at once', environment, head, rows, failures, notes, figures }, json ?? false);
}

const command = new Command('show:both')
  .description('both nodes killed at once under load, returning in either order: nothing acknowledged is lost')
  .option('--times <n>', 'how often', '3')
  .option('--json', 'print the result as one line of JSON')
  .parse();
await main(command.opts<Options>());

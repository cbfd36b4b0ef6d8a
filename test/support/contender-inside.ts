/** Inside a `Contender`: argv is url, volume id, node, number of wins after which it ends; it ends with stdin too. */
import { HoldfastError } from '../../src/base/errors.ts';
import { openCoordinator } from '../../src/coordination/open.ts';

const [url, volumeId, node, wins] = process.argv.slice(2) as [string, string, string, string];
const coordinator = openCoordinator(url, { deadlineMs: 3000 });
const say = (what: object): void => void process.stdout.write(`${JSON.stringify(what)}\n`);
let stopped = false;
process.stdin.on('end', () => (stopped = true)).resume();
// A pipe whose other end is gone: nobody wants to know any more.
process.stdin.on('error', () => process.exit(1));

for (let n = 1, won = 0; !stopped && won < Number(wins); n++) {
  try {
    const current = (await coordinator.read(volumeId))!;
    const { version, ...rest } = current;
    const by = { node, bootId: `boot-${node}`, n };
    try {
      const next = { ...rest, epoch: rest.epoch + 1, primary: node, by };
      const { outcome, register } = await coordinator.compareAndSet(version, next);
      if (outcome === 'refused') continue;
      say({ won: { version: register.version, n } });
      won++;
    } catch (error) {
      if (!(error instanceof HoldfastError)) throw error;
      // UNREACHABLE: it was certainly not sent.
      if (error.code !== 'UNREACHABLE') say({ unknown: n });
    }
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
  }
}
await coordinator.close();
process.stdin.destroy();

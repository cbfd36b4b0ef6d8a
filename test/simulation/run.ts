/** `npm run simulate -- --seeds N [--from S] [--nodes 2|3] [--seed S]`: many seeds, or one with its whole log. */
import { parseArgs } from 'node:util';
import { simulate } from './simulate.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    nodes: { type: 'string' },
    seed: { type: 'string' },
  },
});
const one = values.seed === undefined ? null : Number(values.seed);
const from = one ?? Number(values.from);
const count = one === null ? Number(values.seeds) : 1;
const startedMs = performance.now();
let [operations, failovers, failed] = [0, 0, 0];
for (let seed = from; seed < from + count; seed++) {
  const nodes = values.nodes === undefined ? 2 + (seed % 2) : Number(values.nodes);
  const result = await simulate(seed, { nodes });
  operations += result.operations;
  failovers += result.failovers;
  if (one !== null) process.stdout.write(`${result.log.join('\n')}\n`);
  if (result.wrong === null) continue;
  failed++;
  process.stdout.write(`seed ${seed}, ${nodes} nodes: ${result.wrong}\n`);
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
process.stdout.write(`${count} seeds, ${failed} failed; ${operations} operations, ${failovers} epochs, ${seconds} s\n`);
process.exitCode = failed > 0 ? 1 : 0;

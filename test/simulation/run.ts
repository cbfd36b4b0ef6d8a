/**
 * `npm run simulate -- --seeds N [--from S] [--nodes 2..5] [--large] [--tight] [--only SCENARIO] [--without RULE]`: many
 * seeds; `--seed S`: one, with its whole log. Without options: what `npm test` runs (see `usual`).
 */
import { parseArgs } from 'node:util';
import { SCENARIOS, type Scenario } from './scenarios.ts';
import { type SimulationOptions, simulate } from './simulate.ts';
import { usual } from './usual.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '100' },
    from: { type: 'string', default: '1' },
    nodes: { type: 'string' },
    seed: { type: 'string' },
    large: { type: 'boolean' },
    tight: { type: 'boolean' },
    only: { type: 'string' },
    without: { type: 'string' },
  },
});
if (values.only !== undefined && !(values.only in SCENARIOS)) {
  process.stderr.write(`there is no scenario "${values.only}": ${Object.keys(SCENARIOS).join(', ')}\n`);
  process.exit(2);
}
const one = values.seed === undefined ? null : Number(values.seed);
const from = one ?? Number(values.from);
const count = one === null ? Number(values.seeds) : 1;
const startedMs = performance.now();
let [operations, failovers, failed, fullCopies] = [0, 0, 0, 0];
for (let seed = from; seed < from + count; seed++) {
  const options: SimulationOptions = {
    ...usual(seed),
    ...(values.nodes !== undefined && { nodes: Number(values.nodes) }),
    ...(values.large === true && { large: true }),
    ...(values.tight === true && { tight: true }),
    ...(values.only !== undefined && {
      only: values.only as Scenario,
      large: values.large === true || SCENARIOS[values.only as Scenario].large === true,
    }),
    ...(values.without !== undefined && { rules: { [values.without]: false } }),
  };
  const result = await simulate(seed, options);
  operations += result.operations;
  failovers += result.failovers;
  fullCopies += result.fullCopies;
  if (one !== null) process.stdout.write(`${result.log.join('\n')}\n`);
  if (result.wrong === null) continue;
  failed++;
  process.stdout.write(`seed ${seed}, ${options.nodes} nodes${options.large ? ', large' : ''}: ${result.wrong}\n`);
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
process.stdout.write(
  `${count} seeds, ${failed} failed; ${operations} operations, ${failovers} epochs, ${fullCopies} full copies, ${seconds} s\n`,
);
process.exitCode = failed > 0 ? 1 : 0;

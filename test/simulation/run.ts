/**
 * `npm run simulate -- --seeds N [--from S] [--nodes 2..5] [--large] [--tight] [--only SCENARIO] [--without RULE]`: many
 * seeds; `--seed S`: one, with its whole log. Without options: what `npm test` runs (see `usual`). `--kv`: of a key-value
 * volume, with its own scenarios and rules, 2 or 3 nodes.
 */
import { parseArgs } from 'node:util';
import { SCENARIOS, type Scenario } from './scenarios.ts';
import { KV_SCENARIOS, type KvScenario } from './kv-scenarios.ts';
import { type SimulationOptions, type SimulationResult, simulate } from './simulate.ts';
import { type KvSimulationOptions, simulateKv } from './simulate-kv.ts';
import { usual, usualKv } from './usual.ts';

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
    kv: { type: 'boolean' },
  },
});
const scenarios = Object.keys(values.kv === true ? KV_SCENARIOS : SCENARIOS);
if (values.only !== undefined && !scenarios.includes(values.only)) {
  process.stderr.write(`there is no scenario "${values.only}": ${scenarios.join(', ')}\n`);
  process.exit(2);
}
const one = values.seed === undefined ? null : Number(values.seed);
const from = one ?? Number(values.from);
const count = one === null ? Number(values.seeds) : 1;
const startedMs = performance.now();
let [operations, failovers, failed, fullCopies] = [0, 0, 0, 0];

async function runKv(seed: number): Promise<[SimulationResult, string]> {
  const options: KvSimulationOptions = {
    ...usualKv(seed),
    ...(values.nodes !== undefined && { nodes: Number(values.nodes) }),
    ...(values.only !== undefined && { only: values.only as KvScenario }),
    ...(values.without !== undefined && { rules: { [values.without]: false } }),
  };
  return [await simulateKv(seed, options), `${options.nodes} nodes, key-value volume`];
}

async function run(seed: number): Promise<[SimulationResult, string]> {
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
  return [await simulate(seed, options), `${options.nodes} nodes${options.large ? ', large' : ''}`];
}

for (let seed = from; seed < from + count; seed++) {
  const [result, what] = await (values.kv === true ? runKv(seed) : run(seed));
  operations += result.operations;
  failovers += result.failovers;
  fullCopies += result.fullCopies;
  if (one !== null) process.stdout.write(`${result.log.join('\n')}\n`);
  if (result.wrong === null) continue;
  failed++;
  process.stdout.write(`seed ${seed}, ${what}: ${result.wrong}\n`);
}
const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
process.stdout.write(
  `${count} seeds, ${failed} failed; ${operations} operations, ${failovers} epochs, ${fullCopies} full copies, ${seconds} s\n`,
);
process.exitCode = failed > 0 ? 1 : 0;

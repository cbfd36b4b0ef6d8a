/**
 * Runs every micro bench, each in its own process, so that none meets the garbage or the compiled code of another.
 * `node dist/bench/micro/run.js [--quick] [NAME...]`
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const quick = args.includes('--quick');
const wanted = args.filter((a) => !a.startsWith('-'));
const all = readdirSync(here).filter((name) => name.endsWith('.bench.js'));
const files = all.filter((name) => wanted.length === 0 || wanted.includes(name.replace('.bench.js', '')));
if (files.length === 0) {
  process.stderr.write(`no such bench; there are: ${all.map((n) => n.replace('.bench.js', '')).join(', ')}\n`);
  process.exit(2);
}
for (const file of files) {
  const env = { ...process.env, ...(quick ? { HOLDFAST_BENCH_QUICK: '1' } : {}) };
  const { status } = spawnSync(process.execPath, [join(here, file)], { stdio: 'inherit', env });
  if (status !== 0) process.exit(status ?? 1);
}

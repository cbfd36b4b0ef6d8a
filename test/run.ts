/**
 * The test runner: every built test file in its own process, judged by more than its exit code (see
 * `house/test-process.ts`).
 *
 *     node dist/test/run.js [substring of a path ...] [--verbose]
 *
 * Two files run at a time, those of the ring `simulation` first: they take longest; then three at a time those of the rings
 * that mostly wait for processes. A file has 120 s, or what it asks for in a line comment `deadline: 300 s`. The last line
 * is `N passed, N failed`, counting tests; the exit code is 1 when anything failed or nothing ran.
 */
import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join, sep } from 'node:path';
import { parseArgs } from 'node:util';
import { type FileResult, killAll, runFile, statedDeadlineMs } from './house/test-process.ts';

const AT_ONCE = 2;
const FIRST = ['simulation'];
const WAITING_AT_ONCE = 3;
const LATER = ['docs', 'crash', 'process', 'interop', 'cluster', 'hosts', 'security', 'http'];
const OWN_DIR = fileURLToPath(new URL('.', import.meta.url));

const { values: flags, positionals: filters } = parseArgs({
  allowPositionals: true,
  options: {
    verbose: { type: 'boolean', default: false },
    // The three below are for the test of the runner itself.
    dir: { type: 'string', default: OWN_DIR },
    'deadline-ms': { type: 'string', default: '120000' },
    'grace-ms': { type: 'string', default: '15000' },
  },
});

interface Ring {
  files: number;
  passed: number;
  failed: number;
  skipped: number;
  elapsedMs: number;
}
const rings = new Map<string, Ring>();

const ringOf = (name: string): string => (name.includes(sep) ? name.slice(0, name.indexOf(sep)) : '(top)');
const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`;

function report(name: string, result: FileResult): void {
  const ring = rings.get(ringOf(name)) ?? { files: 0, passed: 0, failed: 0, skipped: 0, elapsedMs: 0 };
  rings.set(ringOf(name), ring);
  ring.files++;
  ring.passed += result.passed;
  ring.failed += result.failed;
  ring.skipped += result.skipped;
  ring.elapsedMs += result.elapsedMs;
  const bad = result.problems.length > 0;
  const mark = bad ? 'FAIL' : result.skipped > 0 && result.passed === 0 ? 'skip' : 'ok  ';
  console.log(`${mark} ${name}  ${result.passed} passed  ${seconds(result.elapsedMs)}`);
  for (const note of result.notes) console.log(`     ${note}`);
  for (const problem of result.problems) console.log(`     ${problem}`);
  if (!bad && !flags.verbose) return;
  console.log(`---- output of ${name}\n${result.output.trim()}\n---- end of ${name}`);
}

/** Built from a source that is there no more: the compiler leaves such files lying. */
function isLeftOver(name: string): boolean {
  if (flags.dir !== OWN_DIR) return false;
  return !existsSync(join(OWN_DIR, '../../test', name.replace(/\.js$/, '.ts')));
}

async function runOne(name: string): Promise<void> {
  const file = join(flags.dir, name);
  const deadlineMs = statedDeadlineMs(file) ?? Number(flags['deadline-ms']);
  report(name, await runFile(file, { deadlineMs, graceMs: Number(flags['grace-ms']) }));
}

async function runAll(names: string[], atOnce: number): Promise<void> {
  const queue = [...names];
  const worker = async (): Promise<void> => {
    for (let name = queue.shift(); name !== undefined; name = queue.shift()) await runOne(name);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => {
    killAll();
    process.exit(1);
  });
}

const names = readdirSync(flags.dir, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.test.js') && !isLeftOver(name))
  .filter((name) => filters.length === 0 || filters.some((filter) => name.includes(filter)))
  .sort();
const startedMs = performance.now();
const isLater = (name: string): boolean => LATER.includes(ringOf(name));
const rank = (ranks: readonly string[], name: string): number => ranks.indexOf(ringOf(name));
await runAll(
  names.filter((name) => !isLater(name)).sort((a, b) => rank(FIRST, b) - rank(FIRST, a)),
  AT_ONCE,
);
await runAll(
  names.filter(isLater).sort((a, b) => rank(LATER, a) - rank(LATER, b)),
  WAITING_AT_ONCE,
);

console.log('');
const sum = { passed: 0, failed: 0, skipped: 0 };
for (const [ring, { files, passed, failed, skipped, elapsedMs }] of rings) {
  console.log(`${ring.padEnd(12)} ${String(files).padStart(3)} files  ${passed} passed  ${seconds(elapsedMs)}`);
  sum.passed += passed;
  sum.failed += failed;
  sum.skipped += skipped;
}
if (names.length === 0) console.log(`no test file matches ${filters.join(', ') || '*.test.js'}`);
console.log(`Node ${process.version}, ${seconds(performance.now() - startedMs)} in all`);
console.log(`${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}`);
process.exitCode = sum.failed > 0 || sum.passed + sum.failed === 0 ? 1 : 0;

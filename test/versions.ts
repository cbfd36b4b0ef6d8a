/**
 * Runs the built tests under other versions of Node, fetched from npm into a temporary folder.
 *
 *     npm run test:versions [-- version ... [-- substring of a path ...]]     default versions: 22 24
 *
 * Nothing is rebuilt: an addon that was built for this Node does not load there, which is how most will install it.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

const RUNNER = fileURLToPath(new URL('./run.js', import.meta.url));
const args = process.argv.slice(2);
const given = args.filter((arg) => /^\d+(\.\d+)*$/.test(arg));
const filters = args.filter((arg) => arg !== '--' && !given.includes(arg));
const versions = given.length > 0 ? given : ['22', '24'];

const folder = mkdtempSync(join(tmpdir(), 'holdfast-versions-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));

/** Runs a program with our output; @returns whether it succeeded */
function run(program: string, ...rest: string[]): boolean {
  const { status, error } = spawnSync(program, rest, { stdio: 'inherit' });
  if (error !== undefined) console.log(`${program}: ${error.message}`);
  return status === 0;
}

const verdicts = versions.map((version) => {
  const prefix = join(folder, version);
  const name = `node-${process.platform}-${process.arch}`;
  console.log(`\n==== Node ${version}`);
  const fetched = run(
    'npm',
    'install',
    '--prefix',
    prefix,
    '--no-save',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    `${name}@${version}`,
  );
  if (!fetched) return { version, verdict: 'could not be fetched' };
  const good = run(join(prefix, 'node_modules', name, 'bin', 'node'), RUNNER, ...filters);
  return { version, verdict: good ? 'good' : 'FAILED' };
});

console.log('');
for (const { version, verdict } of verdicts) console.log(`Node ${version}: ${verdict}`);
process.exitCode = verdicts.every(({ verdict }) => verdict === 'good') ? 0 : 1;

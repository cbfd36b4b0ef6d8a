/** The commands of docs/security.md, as they stand there: a cluster comes of them, with addresses on loopback. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { freePorts } from '../support/free-ports.ts';
import { MAIN, temporaryFolder } from '../support/server-process.ts';
import { until } from '../support/until.ts';

const test = suite('security, what docs/security.md says');
const folder = temporaryFolder();
const running: ChildProcess[] = [];
let text = readFileSync(new URL('../../../docs/security.md', import.meta.url), 'utf8');

/** The commands of a section. */
function commandsOf(heading: string): string[] {
  const section = text.split(/^## /m).find((part) => part.startsWith(heading));
  assert.ok(section, `a section "${heading}"`);
  return [...section!.matchAll(/^```sh\n([^]*?)^```$/gm)].map((block) => block[1]!);
}

function run(script: string): string {
  const { status, stdout, stderr } = spawnSync('bash', ['-euc', script], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${join(folder, 'bin')}:${process.env['PATH']}` },
  });
  assert.is(status, 0, `${script}\n${stderr}${stdout}`);
  return stdout;
}

/** A command that goes on, until it listens. */
async function start(command: string): Promise<void> {
  const child = spawn('bash', ['-euc', `exec ${command.trim()}`], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, PATH: `${join(folder, 'bin')}:${process.env['PATH']}`, HOLDFAST_LOG_LEVEL: 'warn' },
  });
  running.push(child);
  const stop = (): void => void child.kill('SIGKILL');
  process.once('exit', stop);
  child.once('exit', () => process.off('exit', stop));
  let printed = '';
  child.stderr.on('data', (chunk: Buffer) => (printed += chunk.toString()));
  createInterface({ input: child.stdout }).on('line', (line) => (printed += `${line}\n`));
  await until(() => /coordinating|clients on/.test(printed) || child.exitCode !== null, 'it to listen');
  assert.is(child.exitCode, null, `${command}\n${printed}`);
}

test.before(async () => {
  const ports = await freePorts(5);
  const places = ['10.0.0.9:7400', '10.0.0.1:7401', '10.0.0.1:7441', '10.0.0.2:7401', '10.0.0.2:7441'];
  places.forEach((place, i) => (text = text.replaceAll(place, `127.0.0.1:${ports[i]}`)));
  text = text.replaceAll(/\b10\.0\.0\.\d\b/g, '127.0.0.1');
  spawnSync('mkdir', [join(folder, 'bin')]);
  const bin = join(folder, 'bin', 'holdfast');
  writeFileSync(bin, `#!/bin/sh\nexec "${process.execPath}" "${MAIN}" "$@"\n`);
  chmodSync(bin, 0o755);
});

test.after(async () => {
  for (const child of running.reverse()) {
    const exited = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGTERM');
    await exited;
  }
});

test('step by step, from nothing to a client that writes', async () => {
  run(commandsOf('1.').join('\n'));
  const verified = run(commandsOf('2.').join('\n'));
  assert.match(verified, /a\.crt: OK\nb\.crt: OK\ncoordinator\.crt: OK\noperator\.crt: OK\napp\.crt: OK/);
  assert.match(run(commandsOf('3.').join('\n')), /backup/);
  for (const command of commandsOf('4.')) await start(command);
  assert.match(run(commandsOf('5.').join('\n')), /vm1/);
  assert.match(run(commandsOf('6.').join('\n')), /hello\n$/);
});

test.run();

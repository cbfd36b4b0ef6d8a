/**
 * The units in docs/systemd: systemd takes them, they are closed as far as they can be, and what the processes call is let
 * through by their filter.
 */
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withCoordinator } from '../../src/cli/cluster.ts';
import { lookAt } from '../../src/cli/cluster-status.ts';
import { connect } from '../../src/client/index.ts';
import { CoordinatorProcess } from '../support/coordinators.ts';
import { freePorts } from '../support/free-ports.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';

const DOCS = fileURLToPath(new URL('../../../docs/systemd/', import.meta.url));
const UNITS = readdirSync(DOCS).filter((name) => name.endsWith('.service'));
const PROGRAM = '/usr/local/bin/holdfast';
/** Exposure as `systemd-analyze security` counts it, times ten: 100 is wide open. */
const MOST_EXPOSED = 20;
/** Beyond the filter, and harmless to be refused, which the test shows: V8 asks whether there are protection keys. */
const MAY_BE_REFUSED = ['pkey_alloc'];

const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const settings = (unit: string, name: string): string[] =>
  [...readFileSync(join(DOCS, unit), 'utf8').matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map((match) => match[1]!);

const test = suite('systemd units');

test('a failed disk is not tried again and again, a crash is; stopping has the time it takes', () => {
  assert.equal(UNITS.sort(), ['holdfast-coordinator.service', 'holdfast-node@.service']);
  for (const unit of UNITS) {
    assert.equal(settings(unit, 'Restart'), ['on-failure']);
    assert.equal(settings(unit, 'RestartPreventExitStatus'), ['2 74']);
    assert.equal(settings(unit, 'NoNewPrivileges'), ['true']);
    assert.equal(settings(unit, 'ProtectSystem'), ['strict']);
    assert.ok(Number(settings(unit, 'TimeoutStopSec')[0]) >= 30);
    assert.ok(Number(settings(unit, 'LimitNOFILE')[0]) >= 8192);
  }
});

test('a user of etcd, its files and a password have a place, which need not be there', () => {
  assert.equal(settings('holdfast-node@.service', 'EnvironmentFile'), ['-/etc/holdfast/%i.env']);
});

test('what they start is a command that there is, with flags that it has', async () => {
  for (const unit of UNITS) {
    const [program, command, ...args] = settings(unit, 'ExecStart')[0]!.split(' ');
    assert.is(program, PROGRAM);
    const { code, stdout } = await holdfast([command!, '--help']);
    assert.is(code, 0);
    for (const flag of args.filter((arg) => arg.startsWith('--'))) assert.match(stdout.toString(), `${flag} <`);
  }
});

if (!has('systemd-analyze')) process.stdout.write('# skip: systemd-analyze is not installed\n');
else {
  test('systemd-analyze verify finds nothing, and security little', () => {
    const dir = temporaryFolder();
    for (const unit of UNITS) {
      const text = readFileSync(join(DOCS, unit), 'utf8').replaceAll(PROGRAM, process.execPath);
      // Of a template an instance is looked at.
      const file = join(dir, unit.replace('@.', '@a.'));
      writeFileSync(file, text);
      const verified = spawnSync('systemd-analyze', ['verify', '--man=no', file], { encoding: 'utf8' });
      assert.is(verified.status, 0, verified.stderr);
      const about = `${verified.stdout}${verified.stderr}`.split('\n').filter((line) => line.includes(dir));
      assert.equal(about, []);
      const args = ['security', '--offline=true', `--threshold=${MOST_EXPOSED}`, '--no-pager', file];
      const judged = spawnSync('systemd-analyze', args, { encoding: 'utf8' });
      assert.is(judged.status, 0, judged.stdout.slice(-2000) + judged.stderr);
    }
  });
}

/** System calls by set, as this systemd has them. */
function sets(): Map<string, string[]> {
  const { stdout } = spawnSync('systemd-analyze', ['syscall-filter', '--no-pager'], { encoding: 'utf8' });
  const found = new Map<string, string[]>();
  let current: string[] = [];
  for (const line of stdout.split('\n')) {
    // What is not in any set comes last, commented out.
    if (line.startsWith('#')) break;
    if (line.startsWith('@')) found.set(line.trim(), (current = []));
    else if (/^\s+[@\w]/.test(line)) current.push(line.trim());
  }
  return found;
}

function expanded(name: string, all: Map<string, string[]>): string[] {
  return name.startsWith('@') ? (all.get(name) ?? []).flatMap((one) => expanded(one, all)) : [name];
}

if (!has('systemd-analyze') || !has('strace')) process.stdout.write('# skip: strace is not installed\n');
else {
  test('every system call of a node that makes a volume, writes, reads and stops is let through', async () => {
    const all = sets();
    const [allowed, denied] = settings('holdfast-node@.service', 'SystemCallFilter');
    const passes = new Set([...expanded(allowed!, all), ...expanded('@default', all)]);
    for (const name of denied!
      .slice(1)
      .split(' ')
      .flatMap((one) => expanded(one, all)))
      passes.delete(name);
    assert.ok(passes.size > 150 && passes.has('futex') && !passes.has('mount'), `${passes.size}`);

    const dir = temporaryFolder();
    const coordinator = await CoordinatorProcess.start(join(dir, 'coordinator'));
    const [client, peer] = await freePorts(2);
    const args = ['node', '--name', 'a', '--dir', join(dir, 'a'), '--coordinator', coordinator.url];
    args.push('--listen', `127.0.0.1:${client}`, '--peer-listen', `127.0.0.1:${peer}`);
    const counts = join(dir, 'counts');
    // As the filter would refuse them.
    const inject = ['-e', `inject=${MAY_BE_REFUSED.join(',')}:error=EPERM`];
    const { info, exited } = await launch<{ pid: number }>(args, {}, [
      'strace',
      '-f',
      '-qq',
      '-c',
      ...inject,
      '-o',
      counts,
    ]);
    await holdfast(['volume', 'create', 'disk', '--size', '16MiB', '--replicas', '1', '--allow-sparse'], {
      env: { HOLDFAST_COORDINATOR: coordinator.url },
    });
    await withCoordinator({ coordinator: coordinator.url }, async (known) => {
      while ((await lookAt(known)).volumes[0]?.verdict !== 'degraded');
    });
    const volume = await connect(`holdfast://127.0.0.1:${client}/disk`);
    await volume.write(5, Buffer.alloc(300_000, 7));
    assert.is((await volume.read(299_999, 10))[0], 7);
    await volume.close();
    process.kill(info.pid, 'SIGTERM');
    assert.is((await exited).code, 0);
    await coordinator.kill();
    const called = [...readFileSync(counts, 'utf8').matchAll(/^\s*[\d.]+.*\s(\w+)$/gm)].map((match) => match[1]!);
    assert.ok(called.includes('fdatasync') && called.includes('futex'), called.join(' '));
    const refused = called.filter((name) => name !== 'total' && !passes.has(name) && !MAY_BE_REFUSED.includes(name));
    assert.equal(refused, []);
  });
}

test.run();

/** Nothing listens beyond loopback without TLS, or without a word of its owner; on real processes. */
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { isLoopback } from '../../src/node/exposure.ts';
import { freePorts } from '../support/free-ports.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';

const test = suite('security, listening');
const folder = temporaryFolder();
const coordinator = ['--coordinator', 'holdfast://127.0.0.1:1'];
let made = 0;

function nodeArgs(...more: string[]): string[] {
  const own = ['--listen', '127.0.0.1:0', '--peer-listen', '127.0.0.1:0'];
  return ['node', '--name', 'a', '--dir', join(folder, `n${++made}`), ...coordinator, ...own, ...more];
}

test('what is loopback, and what is not certainly', () => {
  const own = ['127.0.0.1:1', '127.8.9.1:1', '[::1]:1', 'localhost:1', 'LOCALHOST:1', '7401', ':7401'];
  for (const address of [...own, 'unix:/run/x.sock', '[::ffff:127.0.0.1]:1']) assert.ok(isLoopback(address), address);
  const others = ['0.0.0.0:1', '[::]:1', '10.0.0.1:1', '128.0.0.1:1', '127.0.0.1.example.com:1', 'localhost.example:1'];
  for (const address of [...others, 'host:1', '[::ffff:10.0.0.1]:1']) assert.not(isLoopback(address), address);
});

test('each port of each command is refused beyond loopback, with the remedy', async () => {
  const refused: Array<[flag: string, args: string[]]> = [
    ['--listen', nodeArgs('--listen', '0.0.0.0:0', '--advertise', '127.0.0.1')],
    ['--peer-listen', nodeArgs('--peer-listen', '[::]:0', '--advertise', '127.0.0.1')],
    ['--nbd', nodeArgs('--nbd', '0.0.0.0:0')],
    ['--kv', nodeArgs('--kv', '0.0.0.0:0')],
    ['--listen', ['coordinator', '--dir', join(folder, 'c'), '--listen', '0.0.0.0:0']],
    ['--listen', ['serve', join(folder, 's'), '--size', '8MiB', '--listen', '0.0.0.0:0']],
    ['--nbd', ['serve', join(folder, 's'), '--size', '8MiB', '--listen', '127.0.0.1:0', '--nbd', '0.0.0.0:0']],
    ['--listen', ['nbd', 'holdfast://127.0.0.1:1/v', '--listen', '0.0.0.0:0']],
  ];
  for (const [flag, args] of refused) {
    const { code, stderr } = await holdfast(args);
    assert.is(code, 1, args.join(' '));
    assert.match(stderr, `listen for ${flag}: permission denied (EACCES)`);
    assert.match(stderr, /can be reached from other machines.*To remedy: .*--insecure/);
  }
});

test('with --insecure, and with unix:, they listen', async () => {
  const [port] = await freePorts(1);
  const open = ['--listen', `0.0.0.0:${port}`, '--insecure', '--nbd', `unix:${join(folder, 'nbd.sock')}`];
  const insecure = await launch<{ listen: string }>(['serve', join(folder, 's1'), '--size', '8MiB', ...open], {});
  assert.is(insecure.info.listen, `0.0.0.0:${port}`);
  insecure.child.kill('SIGTERM');
  assert.is((await insecure.exited).code, 0);
  const socket = ['--listen', '127.0.0.1:0', '--nbd', `unix:${join(folder, 'nbd.sock')}`];
  const local = await launch<{ nbd: string }>(['serve', join(folder, 's1'), ...socket], {});
  assert.match(local.info.nbd, /^nbd\+unix:/);
  local.child.kill('SIGTERM');
  assert.is((await local.exited).code, 0);
});

test.run();

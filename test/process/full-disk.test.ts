/** A sparse volume on a disk that fills up: writes are refused, nothing acknowledged is lost, writing goes on later. */
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { temporaryFolder } from '../support/server-process.ts';

const test = suite('a full disk under a sparse volume');
const unshare = (script: string): { status: number | null; stdout: string; stderr: string } =>
  spawnSync('unshare', ['--mount', 'sh', '-ec', script], { encoding: 'utf8', timeout: 100_000 });

if (unshare('mount -t tmpfs none /mnt').status !== 0) {
  process.stdout.write('# skip: no privilege for a mount namespace\n');
} else {
  test('NO_SPACE for new writes, then on again', () => {
    const folder = join(temporaryFolder(), 'small');
    mkdirSync(folder);
    const inside = fileURLToPath(new URL('./full-disk-inside.js', import.meta.url));
    const { stdout, stderr } = unshare(
      `mount -t tmpfs -o size=250m none "${folder}"; "${process.execPath}" "${inside}" "${folder}"`,
    );
    const line = stdout.trim().split('\n').at(-1)!;
    const result = JSON.parse(line === '' ? '{}' : line) as Record<string, unknown>;
    assert.is(result['refusedWith'], 'NO_SPACE', stderr);
    assert.is(result['readWhileFull'], 'ok');
    assert.is(result['resumed'], true);
    assert.is(result['lost'], 0);
    assert.is(result['code'], 0);
    assert.ok((result['acknowledged'] as number) > 100);
  });
  test.run();
}

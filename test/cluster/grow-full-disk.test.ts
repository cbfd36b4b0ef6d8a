/** A volume that is to grow, with a full disk under one of its members: nothing changes anywhere, and less is granted. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { TestCluster } from '../support/cluster.ts';
import { Random } from '../support/random.ts';

const test = suite('grow: a full disk');
const MiB = 1024 * 1024;

const mounts = spawnSync('unshare', ['--mount', 'sh', '-ec', 'mount -t tmpfs none /mnt']).status === 0;
if (!mounts) process.stdout.write('# skip: no privilege for a mount namespace\n');
else {
  test('a full disk on one member: nothing changes anywhere, and less is granted', async () => {
    let dir = '';
    const script = (): string => `mount -t tmpfs -o size=110m none "${dir}"; exec "$@"`;
    const cluster = await TestCluster.start(['a'], {
      on: (name) => (name === 'b' ? ['unshare', '--mount', 'sh', '-ec', script(), 'sh'] : []),
    });
    dir = join(cluster.dir, 'b');
    mkdirSync(dir);
    await cluster.add('b');
    await cluster.create('disk', '16MiB', 2);
    await cluster.untilSafe();
    const folder = join(cluster.slot('a').dir, 'volumes', 'disk');
    const volume = await connect(cluster.url('disk'));
    await volume.write(0, new Random(5).bytes(MiB));
    const { code, stderr } = await cluster.cli('volume', 'grow', 'disk', '--size', '128MiB');
    assert.is(code, 1);
    assert.match(stderr, /peer b\).*no space left.*free space on that file system, or take a smaller --size/s);
    assert.is((await volume.info()).sizeBytes, 16 * MiB);
    assert.equal(readdirSync(folder).sort(), ['data', 'journal', 'lock', 'meta'], 'nor is a touched');
    assert.is(statSync(join(folder, 'data')).size, 16 * MiB);
    assert.is((await cluster.status()).verdict, 'safe');

    assert.match(await cluster.must('volume', 'grow', 'disk', '--size', '32MiB'), /from 16 MiB to 32 MiB, on a, b/);
    await volume.info();
    await volume.write(31 * MiB, new Random(5).bytes(MiB));
    assert.equal(await volume.read(31 * MiB, MiB), await volume.read(0, MiB));
    await volume.close();
    await cluster.stopNodes();
    await cluster.stop();
  });
}

test.run();

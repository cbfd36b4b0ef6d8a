/** The contract of BlockDevice on the real store: on the simulated disk, on worker threads, and over a real server. */
import { join } from 'node:path';
import { MiB } from '../../src/base/units.ts';
import { connect } from '../../src/client/index.ts';
import { LocalDevice } from '../../src/node/local-device.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import { IoPool } from '../../src/storage/io-pool.ts';
import { createVolume, openVolume } from '../../src/storage/volume-folder.ts';
import { ServerProcess, temporaryFolder } from '../support/server-process.ts';
import { formatted, opened } from '../support/store-harness.ts';
import { blockDeviceContract } from './block-device.ts';

const SIZE = 8 * MiB;
let volumes = 0;
const base = temporaryFolder();
// One server for all cases: each gets its volume as it would be new. It is started before any suite is registered,
// because uvu begins to run at the first pause, and would count the suites behind it apart.
const server = (await ServerProcess.start(join(base, 'served'), ['--size', `${SIZE}`])).unref();

blockDeviceContract('store on the simulated disk', async () => {
  const o = await opened(await formatted({ sizeBytes: SIZE, journalBytes: 4 * MiB }, ++volumes));
  return { device: o.device, done: () => o.close() };
});

const fail = (error: Error): void => {
  throw error;
};

blockDeviceContract('store on worker threads', async () => {
  const dir = join(base, `local${++volumes}`);
  const pool = new IoPool({ onLost: fail, arenaBytes: 24 * MiB });
  await createVolume(dir, pool, { sizeBytes: SIZE, journalBytes: 4 * MiB });
  const open = await openVolume(dir, pool);
  const volume = new PrimaryVolume(open.store, pool.arena, { readOnly: false, onFailed: fail });
  return {
    device: new LocalDevice(volume, pool.arena),
    done: async () => {
      await volume.drain();
      await open.close();
      await pool.close();
    },
  };
});

blockDeviceContract('client over a real server', async () => {
  const device = await connect(server.url, { connections: 2 });
  await device.zero(0, SIZE);
  return { device, done: () => device.close() };
});

/** A store, a group of one and a device on a simulated disk. */
import { Arena } from '../../src/storage/arena.ts';
import type { BlockStore } from '../../src/storage/block-store.ts';
import { layoutOf } from '../../src/storage/layout.ts';
import { formatStore, openStore } from '../../src/storage/open-store.ts';
import type { Recovered } from '../../src/storage/recovery.ts';
import { LocalDevice } from '../../src/node/local-device.ts';
import { PrimaryVolume } from '../../src/replication/primary-volume.ts';
import type { HoldfastError } from '../../src/base/errors.ts';
import { type Image, SimulatedDisk } from './simulated-disk.ts';

export const MiB = 1024 * 1024;
export const SMALL = { sizeBytes: 2 * MiB, journalBytes: 4 * MiB };

/** One arena for all disks of a test file: it is large, and a disk that died must not keep it. */
export function newArena(): Arena {
  return new Arena(24 * MiB);
}

export interface Opened {
  disk: SimulatedDisk;
  store: BlockStore;
  volume: PrimaryVolume;
  device: LocalDevice;
  recovered: Recovered | null;
  damagedPages: number;
  /** What the store reported when it failed. */
  failures: HoldfastError[];
  /** Drains and closes in good order. */
  close(): Promise<void>;
}

export async function formatted(size = SMALL, seed = 1, sparse = false): Promise<SimulatedDisk> {
  const layout = layoutOf(size.sizeBytes, size.journalBytes);
  const image = SimulatedDisk.blank({ data: layout.sizeBytes, journal: layout.journalBytes, meta: layout.metaBytes });
  const disk = new SimulatedDisk(image, seed);
  await formatStore(disk, {
    volumeId: Uint8Array.from({ length: 16 }, (_, i) => i + 1),
    diskId: Uint8Array.from({ length: 16 }, (_, i) => 100 + i),
    name: 'sim',
    ...size,
    createdAtMs: 0,
    sparse,
    durable: true,
  });
  return disk;
}

export async function opened(disk: SimulatedDisk): Promise<Opened> {
  const { store, recovered, damagedPages } = await openStore(disk, {
    sizes: disk.sizes,
    defer: setImmediate,
    where: 'sim',
  });
  const failures: HoldfastError[] = [];
  const volume = new PrimaryVolume(store, disk.arena, {
    readOnly: false,
    onFailed: (error) => void failures.push(error),
  });
  const device = new LocalDevice(volume, disk.arena);
  const close = async (): Promise<void> => {
    await volume.drain();
    await store.close();
  };
  return { disk, store, volume, device, recovered, damagedPages, failures, close };
}

/** The same disk content on a new machine. */
export function reborn(image: Image, seed: number, arena?: Arena): SimulatedDisk {
  return new SimulatedDisk(image, seed, arena);
}

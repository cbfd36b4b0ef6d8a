/** Where figures were measured: they mean nothing without it. */
import { mkdirSync, statfsSync } from 'node:fs';
import { arch, availableParallelism, cpus, release, totalmem } from 'node:os';
import { formatBytes } from '../../src/base/units.ts';

export interface Environment {
  date: string;
  node: string;
  kernel: string;
  cpu: string;
  cpus: number;
  memory: string;
  fileSystem: string;
}

/** Magic numbers of statfs, for the file systems that a volume may lie on. */
const FILE_SYSTEMS: Record<number, string> = {
  0xef53: 'ext4',
  0x58465342: 'xfs',
  0x9123683e: 'btrfs',
  0x01021994: 'tmpfs',
  0x794c7630: 'overlayfs',
  0x6969: 'nfs',
  0x2fc12fc1: 'zfs',
};

/** `dir`: the folder in which the volumes of the bench lie; created if it is missing. */
export function environmentOf(dir: string): Environment {
  mkdirSync(dir, { recursive: true });
  const magic = statfsSync(dir).type;
  return {
    date: new Date().toISOString(),
    node: process.version,
    kernel: release(),
    cpu: `${cpus()[0]?.model.trim() ?? 'unknown'} (${arch()})`,
    cpus: availableParallelism(),
    memory: formatBytes(totalmem()),
    fileSystem: FILE_SYSTEMS[magic] ?? `0x${magic.toString(16)}`,
  };
}

export function describeEnvironment(e: Environment): string {
  return `${e.date.slice(0, 10)}, Node ${e.node}, ${e.cpus} x ${e.cpu}, ${e.memory}, Linux ${e.kernel}, ${e.fileSystem}`;
}

/** What must be said before figures of durable writes are believed. */
export function environmentWarning(e: Environment): string | null {
  return e.fileSystem === 'tmpfs'
    ? 'the folder lies on tmpfs, where fdatasync does nothing: figures of durable writes mean nothing here (see --dir)'
    : null;
}

/** The task of `yardstick-task-per-request`: one request, read and verified, in a thread of the pool. */
import { readSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { crc32 } from 'node:zlib';
import { BLOCK_BYTES } from '../../src/base/units.ts';

/** Shared with the main thread, so that a block is not copied between the threads. */
export interface TaskMemory {
  fd: number;
  /** One block for each request in flight. */
  slots: SharedArrayBuffer;
  /** CRC-32 of each block of the file. */
  crcs: SharedArrayBuffer;
}

export interface Task {
  block: number;
  slot: number;
}

const memory = workerData as TaskMemory;
const slots = new Uint8Array(memory.slots);
const crcs = new Uint32Array(memory.crcs);

/** @returns the CRC of the block, which the reply carries, or -1 if it does not match */
export default function readBlock({ block, slot }: Task): number {
  const at = slot * BLOCK_BYTES;
  if (readSync(memory.fd, slots, at, BLOCK_BYTES, block * BLOCK_BYTES) !== BLOCK_BYTES) return -1;
  const crc = crc32(slots.subarray(at, at + BLOCK_BYTES));
  return crc === crcs[block] ? crc : -1;
}

/** A byte of a file, looked at or flipped under whoever has it open. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs';

/** @param put what is to be there; else it is read */
export function byteAt(file: string, offset: number, put?: number): number {
  const fd = openSync(file, 'r+');
  const one = Buffer.alloc(1);
  if (put === undefined) readSync(fd, one, 0, 1, offset);
  else writeSync(fd, Buffer.of(put), 0, 1, offset);
  closeSync(fd);
  return one[0]!;
}

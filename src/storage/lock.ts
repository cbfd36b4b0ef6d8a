/** tmp */
import { openSync, closeSync } from 'node:fs';
import { join } from 'node:path';
export interface FolderLock {
  release(): void;
}
export function lockFolder(dir: string): FolderLock {
  const fd = openSync(join(dir, 'lock'), 'a+');
  return { release: () => closeSync(fd) };
}

/**
 * Which backup files make up one state of a volume: a full one, then incremental ones in their order.
 *
 * Guarantees: a chain is accepted only if nothing can be missing between its files. An incremental file holds all that
 * was written behind its mark; an earlier file of the chain saw that very mark when its copy began, so all that it lacks
 * or has of a later moment is in the incremental one.
 */
import { HoldfastError } from '../base/errors.ts';
import { type Position, comparePositions } from '../base/position.ts';
import type { BackupHeader } from './backup-format.ts';
import type { Verified } from './backup-reader.ts';

/** `12.345` */
export function formatPosition({ epoch, seq }: Position): string {
  return `${epoch}.${seq}`;
}

type Link = Pick<Verified, 'file' | 'header'>;

function broken(file: string, detail: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', {
    operation: 'backup chain',
    detail: `${file}: ${detail}; nothing was written`,
    remedy: 'name the full file first, then its incremental ones in the order in which they were made',
  });
}

function headerFits({ file, header }: Link, earlier: readonly Link[]): void {
  const { since, volumeId, sizeBytes, volume } = header;
  if (earlier.length === 0) {
    if (since !== null)
      throw broken(file, `it holds only what changed since the mark "${since.name}", and stands first`);
    return;
  }
  if (since === null) throw broken(file, 'it is a full backup, and stands behind another file');
  const before = earlier.at(-1)!.header;
  if (volumeId !== before.volumeId) throw broken(file, `it is of another volume, ${volume} (${volumeId})`);
  if (sizeBytes < before.sizeBytes)
    throw broken(file, `its volume has ${sizeBytes} bytes, and had ${before.sizeBytes}`);
  const begins = ({ name, position }: BackupHeader['marks'][number]): boolean =>
    name === since.name && comparePositions(position, since.position) === 0;
  if (!earlier.some((one) => one.header.marks.some(begins))) {
    const mark = `the mark "${since.name}" at ${formatPosition(since.position)}`;
    throw broken(file, `it holds what changed since ${mark}, which no earlier file knows: one is missing between them`);
  }
}

/**
 * @param streamed the last one, of which only the header is known yet
 * @throws HoldfastError INVALID_ARGUMENT
 */
export function checkChain(files: readonly Verified[], streamed: Link | null = null): void {
  files.forEach((one, i) => {
    headerFits(one, files.slice(0, i));
    if (i > 0 && comparePositions(one.trailer.position, files[i - 1]!.trailer.position) < 0) {
      throw broken(one.file, `it is older than ${files[i - 1]!.file}`);
    }
  });
  if (streamed !== null) headerFits(streamed, files);
}

/** `holdfast volume mark`: named points of a volume's log since which the changes are known, for incremental backup. */
import type { Command } from 'commander';
import { connect } from '../client/client.ts';
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, formatBytes } from '../base/units.ts';
import { printJson, printTable } from './output.ts';

interface MarkFlags {
  delete?: boolean;
  json?: boolean;
}

async function mark(url: string, name: string | undefined, flags: MarkFlags): Promise<void> {
  if (!/^holdfasts?:\/\//.test(url)) {
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'mark',
      detail: `"${url}" is no address of a served volume`,
      remedy: 'serve the volume and give its address, e.g. holdfast://127.0.0.1:7401/vm1',
    });
  }
  if (flags.delete && name === undefined) {
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'mark', remedy: 'name the mark to be deleted' });
  }
  const volume = await connect(url);
  try {
    if (name !== undefined) await (flags.delete ? volume.deleteMark(name) : volume.mark(name));
    const marks = (await volume.marks()).map((one) => ({ ...one, dirtyBytes: one.dirtyBlocks * BLOCK_BYTES }));
    if (flags.json) return printJson({ volume: volume.name, sizeBytes: volume.sizeBytes, marks });
    if (name !== undefined) process.stdout.write(`${name}: ${flags.delete ? 'deleted' : 'set'}\n`);
    else if (marks.length === 0) process.stdout.write('no marks\n');
    if (marks.length === 0) return;
    printTable(
      ['mark', 'position', 'changed since', 'of the volume'],
      marks.map(({ name: label, position, dirtyBytes }) => [
        label,
        `${position.epoch}.${position.seq}`,
        formatBytes(dirtyBytes),
        `${((100 * dirtyBytes) / volume.sizeBytes).toFixed(2)} %`,
      ]),
    );
  } finally {
    await volume.close();
  }
}

export function addMarkCommand(
  volume: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  volume
    .command('mark <volume> [name]')
    .description('set a mark on a served volume, from which on changes are known; without a name: list the marks')
    .option('--delete', 'forget the mark')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast volume mark holdfast://127.0.0.1:7401/vm1 monday\n' +
        '  nbdinfo --map=qemu:dirty-bitmap:monday nbd://127.0.0.1:10809/vm1',
    )
    .action((url: string, name: string | undefined, flags: MarkFlags) => run(() => mark(url, name, flags), flags.json));
}

/** `holdfast kv export | import`: the keys of a volume as lines of JSON. */
import type { Command } from 'commander';
import { exportTo } from './kv-export.ts';
import { type ImportFlags, importFrom } from './kv-import.ts';
import type { Run } from './kv-store.ts';

export function addKvFileCommands(kv: Command, run: Run): void {
  kv.command('export <volume> <file>')
    .description(
      'all keys, as they were at one moment, as JSON lines with a checksum at their end, durable when it ends; FILE -: to stdout',
    )
    .option('--fuzzy', 'if more is changed meanwhile than can be followed: keys of different moments')
    .option('--json', 'print JSON')
    .action((url: string, file: string, flags: { fuzzy?: boolean; json?: boolean }) =>
      run(() => exportTo(url, file, flags.fuzzy ?? false, flags.json ?? false), flags.json),
    );
  kv.command('import <volume> <file>')
    .description('the keys of such a file; it is checked whole before anything is written; FILE -: from stdin')
    .option('--if-absent', 'keys that are there stay as they are')
    .option('--fuzzy', 'also keys of different moments')
    .option('--json', 'print JSON')
    .action((url: string, file: string, flags: ImportFlags) => run(() => importFrom(url, file, flags), flags.json));
}

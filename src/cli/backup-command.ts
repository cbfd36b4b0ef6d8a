/** `holdfast volume export | import | backup-info`: backups of served volumes as files (docs/backup.md). */
import { setMaxListeners } from 'node:events';
import type { Command } from 'commander';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, formatBytes } from '../base/units.ts';
import { type Volume, connect } from '../client/index.ts';
import { MAX_HOLD_MS } from '../node/write-holds.ts';
import { checkChain, formatPosition } from './backup-chain.ts';
import { BackupInput } from './backup-input.ts';
import { type Verified, badFile, readBackup, verifyBackup } from './backup-reader.ts';
import { BackupWriter } from './backup-writer.ts';
import { registerOf, withCoordinator } from './cluster.ts';
import { createReplicated } from './cluster-volume-create.ts';
import { addCoordinatorOption } from './coordinator-flags.ts';
import { type Exported, type Pause, VolumeExport } from './export-volume.ts';
import { ReadBack, VolumeWriter, isEmpty, writeFile, zeroAll } from './import-volume.ts';
import { Progress, printFields, printJson } from './output.ts';
import { PauseHook } from './pause-hook.ts';
import { WriteHold } from './write-hold.ts';

type Run = (work: () => Promise<void>, json?: boolean) => Promise<void>;

const MAX_PASSES = 1000;
/** Files of one chain, each of them open. */
const MAX_FILES = 1000;

interface ExportFlags {
  since?: string;
  mark?: string;
  passes: string;
  fuzzy?: boolean;
  hold?: string;
  pauseHook?: string;
  resumeHook?: string;
  json?: boolean;
}

interface ImportFlags {
  create?: boolean;
  coordinator?: string;
  replicas?: string;
  allowSparse?: boolean;
  larger?: boolean;
  overwrite?: boolean;
  fuzzy?: boolean;
  verify: boolean;
  trustStream?: boolean;
  spool?: string;
  json?: boolean;
}

function wrong(operation: string, detail: string, remedy?: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation, detail, remedy });
}

/** Runs so that an interrupt ends it in good order. */
async function interruptible<T>(operation: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController();
  // Every request under way listens.
  setMaxListeners(100, abort.signal);
  const interrupt = (): void => abort.abort(new HoldfastError('ABORTED', { operation }));
  // The second one ends the process at once.
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    return await work(abort.signal);
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
  }
}

// --- export -----------------------------------------------------------------------------------------------------------------

function passesOf(text: string): number {
  const passes = Number(text);
  if (/^\d+$/.test(text) && passes >= 1 && passes <= MAX_PASSES) return passes;
  throw wrong('export', `--passes ${text} is not a number from 1 to ${MAX_PASSES}`);
}

function pauseOf(url: string, flags: ExportFlags): Pause | null {
  if (flags.hold !== undefined && flags.pauseHook !== undefined) throw wrong('export', '--hold and --pause-hook');
  if (flags.hold !== undefined) {
    const ms = Number(flags.hold);
    if (/^\d+$/.test(flags.hold) && ms >= 1 && ms <= MAX_HOLD_MS) return new WriteHold(url, ms);
    throw wrong('export', `--hold ${flags.hold} is not a number of milliseconds from 1 to ${MAX_HOLD_MS}`);
  }
  if (flags.pauseHook !== undefined) return new PauseHook(flags.pauseHook, flags.resumeHook ?? null);
  if (flags.resumeHook !== undefined) throw wrong('export', '--resume-hook without --pause-hook');
  return null;
}

async function exportTo(url: string, file: string, flags: ExportFlags): Promise<void> {
  const [passes, pause] = [passesOf(flags.passes), pauseOf(url, flags)];
  const startedMs = performance.now();
  let outages = 0;
  let progress: Progress | null = null;
  let shownPass = 0;
  const show = (pass: number, done: number, total: number): void => {
    if (pass !== shownPass) {
      progress?.stop();
      progress = new Progress(pass === 1 ? 'copying' : `copying what changed meanwhile (pass ${pass})`);
      shownPass = pass;
    }
    progress!.update(done, total);
  };
  const exported = await interruptible('export', async (signal) => {
    // Over one connection everything comes from one primary, unless that connection is lost: which is counted.
    const events = { lost: () => void outages++, moved: () => void outages++ };
    const volume = await connect(url, { clientName: 'holdfast volume export', events });
    let writer: BackupWriter | null = null;
    try {
      writer = await BackupWriter.open(file);
      return await new VolumeExport(volume, writer, {
        since: flags.since,
        mark: flags.mark,
        passes,
        fuzzy: flags.fuzzy ?? false,
        pause,
        signal,
        outages: () => outages,
        progress: show,
        left: (text) => process.stderr.write(`${text}\n`),
      }).run();
    } catch (error) {
      await writer?.giveUp();
      throw error;
    } finally {
      progress?.stop();
      await volume.close();
    }
  });
  tellExported(file, exported, (performance.now() - startedMs) / 1000, flags);
}

function tellExported(
  file: string,
  { header, trailer, pausedMs }: Exported,
  seconds: number,
  flags: ExportFlags,
): void {
  const kind = header.since === null ? 'full' : 'incremental';
  const { consistent, passes } = trailer;
  const dataBytes = trailer.dataBlocks * BLOCK_BYTES;
  const result = { file, kind, ...header, ...trailer, dataBytes, pausedMs, seconds };
  // With `-` stdout is the backup.
  if (flags.json) return file === '-' ? void process.stderr.write(`${JSON.stringify(result)}\n`) : printJson(result);
  const state = consistent
    ? `consistent: the volume as it was at position ${formatPosition(trailer.position)}`
    : 'FUZZY: its blocks are of different moments; an incremental backup on top of it can be consistent again';
  const paused = pausedMs === null ? '' : `, writers waited ${pausedMs} ms`;
  process.stderr.write(
    `${kind} backup of ${header.volume} to ${file}: ${formatBytes(dataBytes)} of data, ${passes} ` +
      `${passes === 1 ? 'pass' : 'passes'}${paused}\n${state}\n`,
  );
}

// --- looking at files -------------------------------------------------------------------------------------------------------

interface Opened {
  file: Verified;
  input: BackupInput;
}

/** All of them read to their ends. */
async function verifyAll(inputs: readonly BackupInput[]): Promise<Opened[]> {
  const progress = new Progress('verifying');
  const total = inputs.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const opened: Opened[] = [];
  let before = 0;
  try {
    for (const input of inputs) {
      const file = await verifyBackup(input.read(), input.name, (at) => progress.update(before + at, total));
      before += input.sizeBytes;
      opened.push({ file, input });
    }
  } finally {
    progress.stop();
  }
  return opened;
}

async function withInputs<T>(
  files: readonly string[],
  spool: string | undefined,
  work: (inputs: BackupInput[]) => Promise<T>,
): Promise<T> {
  if (files.filter((file) => file === '-').length > 1) throw wrong('read backup', 'stdin is named more than once');
  if (files.length > MAX_FILES) throw wrong('read backup', `more than ${MAX_FILES} files`);
  const inputs: BackupInput[] = [];
  try {
    for (const file of files) inputs.push(await BackupInput.open(file, spool));
    return await work(inputs);
  } finally {
    for (const input of inputs) await input.close();
  }
}

function describe({ file, header, trailer, fileBytes }: Verified): Record<string, string | number | boolean> {
  const { since, marks, volumeId, volume, sizeBytes, startedAt, writtenBy } = header;
  const mark = (one: (typeof marks)[number]): string => `${one.name} at ${formatPosition(one.position)}`;
  return {
    file,
    kind: since === null ? 'full' : `incremental, since the mark ${mark(since)}`,
    state: trailer.consistent ? 'consistent' : 'fuzzy: blocks of different moments',
    position: formatPosition(trailer.position),
    volume,
    volumeId,
    size: formatBytes(sizeBytes),
    marks: marks.map(mark).join(', ') || 'none',
    data: formatBytes(trailer.dataBlocks * BLOCK_BYTES),
    passes: trailer.passes,
    fileSize: formatBytes(fileBytes),
    started: startedAt,
    ended: trailer.endedAt,
    writtenBy,
    sha256: trailer.sha256,
    verified: 'yes: whole and unchanged',
  };
}

async function backupInfo(files: string[], flags: { spool?: string; json?: boolean }): Promise<void> {
  await withInputs(files, flags.spool, async (inputs) => {
    const verified = (await verifyAll(inputs)).map(({ file }) => file);
    if (flags.json) {
      const described = verified.map(({ file, header, trailer, fileBytes }) => {
        const kind = header.since === null ? 'full' : 'incremental';
        return { file, verified: true, kind, fileBytes, ...header, ...trailer };
      });
      if (verified.length > 1) checkChain(verified);
      return printJson(described.length === 1 ? described[0]! : { chain: described });
    }
    verified.forEach((one, i) => {
      if (i > 0) process.stdout.write('\n');
      printFields(describe(one));
    });
    if (verified.length === 1) return;
    checkChain(verified);
    process.stdout.write(`\nThese ${verified.length} files are a chain: they can be imported in this order.\n`);
  });
}

// --- import -----------------------------------------------------------------------------------------------------------------

interface Imported {
  volume: string;
  position: string;
  consistent: boolean;
  writtenBytes: number;
  verified: boolean;
}

async function importFrom(target: string, files: string[], flags: ImportFlags): Promise<void> {
  const streamed = flags.trustStream === true;
  if (streamed && files.at(-1) !== '-') throw wrong('import', '--trust-stream is for stdin, which is to come last');
  const startedMs = performance.now();
  const named = streamed ? files.slice(0, -1) : files;
  const imported = await withInputs(named, flags.spool, async (inputs) => {
    const opened = await verifyAll(inputs);
    checkChain(opened.map(({ file }) => file));
    if (streamed) return importStream(target, opened, flags);
    const last = opened.at(-1)!.file;
    refuseFuzzy(last.trailer.consistent, last.file, flags);
    return withTarget(target, last.header.sizeBytes, flags, (volume, signal) =>
      writeAll(volume, opened, flags, signal),
    );
  });
  const seconds = (performance.now() - startedMs) / 1000;
  if (flags.json) return printJson({ ...imported, seconds });
  const { volume, position, consistent, writtenBytes, verified } = imported;
  process.stderr.write(
    `${volume}: ${formatBytes(writtenBytes)} of data written${verified ? ', read back and compared' : ''}\n` +
      (consistent ? `it is as it was at position ${position}\n` : 'FUZZY: its blocks are of different moments\n'),
  );
}

function refuseFuzzy(consistent: boolean, file: string, flags: ImportFlags): void {
  if (consistent || flags.fuzzy) return;
  const remedy =
    'end with a consistent incremental backup, or give --fuzzy to import it so; then check what lies in it';
  throw wrong('import', `${file} is fuzzy: its blocks are of different moments; nothing was written`, remedy);
}

/** Opens the volume, or makes it, and sees to it that it may be written to. */
async function withTarget<T>(
  target: string,
  sizeBytes: number,
  flags: ImportFlags,
  work: (volume: Volume, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const url = flags.create ? await created(target, sizeBytes, flags) : target;
  return interruptible('import', async (signal) => {
    const volume = await connect(url, { clientName: 'holdfast volume import' });
    try {
      await checkTarget(volume, sizeBytes, flags);
      return await work(volume, signal).catch((error: unknown) => {
        const { code, details, message } = asHoldfastError(error);
        throw new HoldfastError(code, {
          operation: 'import',
          volume: volume.name,
          detail: `the volume holds a PART of the backup: ${message}`,
          remedy: details.remedy ?? 'give the command again, with --overwrite',
          cause: error,
        });
      });
    } finally {
      await volume.close();
    }
  });
}

async function created(name: string, sizeBytes: number, flags: ImportFlags): Promise<string> {
  const { coordinator, replicas, allowSparse } = flags;
  const given = { coordinator, replicas, allowSparse };
  const create = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
  await createReplicated(name, {
    ...create,
    size: String(sizeBytes),
    durable: true,
    wait: true,
    json: flags.json ?? false,
  });
  return withCoordinator(coordinator === undefined ? {} : { coordinator }, async (registers) => {
    const { members } = await registerOf(registers, name);
    return `holdfast://${members.map(({ clientAddress }) => clientAddress).join(',')}/${name}`;
  });
}

async function checkTarget(volume: Volume, sizeBytes: number, flags: ImportFlags): Promise<void> {
  const refuse = (detail: string, remedy: string): HoldfastError =>
    new HoldfastError('INVALID_ARGUMENT', {
      operation: 'import',
      volume: volume.name,
      detail: `${detail}; nothing was written`,
      remedy,
    });
  const [has, needs] = [`it has ${volume.sizeBytes} bytes`, `the backup is of ${sizeBytes}`];
  if (volume.readOnly) throw refuse('it is read-only', 'import into another one');
  if (volume.sizeBytes < sizeBytes) throw refuse(`${has}, ${needs}`, 'import into a volume that is large enough');
  if (volume.sizeBytes > sizeBytes && !flags.larger) {
    throw refuse(`${has}, ${needs}`, 'give --larger: what lies behind reads as zeros then');
  }
  if (!flags.overwrite && !(await isEmpty(volume))) {
    throw refuse('it is not empty', 'give --overwrite if all that it holds may be lost, or import into another one');
  }
}

async function writeAll(
  volume: Volume,
  opened: readonly Opened[],
  flags: ImportFlags,
  signal: AbortSignal,
): Promise<Imported> {
  const total = opened.reduce((sum, { file }) => sum + file.fileBytes, 0);
  await cleared(volume, signal);
  const writing = new Progress('writing');
  let before = 0;
  try {
    for (const { file, input } of opened) {
      const writer = new VolumeWriter(volume, signal);
      await writeFile(writer, file, input, (at) => writing.update(before + at, total));
      before += file.fileBytes;
    }
  } finally {
    writing.stop();
  }
  if (flags.verify) {
    const comparing = new Progress('reading back');
    const report = (done: number): void => comparing.update(done, total);
    await new ReadBack(volume, signal).compare(opened, report).finally(() => comparing.stop());
  }
  const { trailer } = opened.at(-1)!.file;
  return {
    volume: volume.name,
    position: formatPosition(trailer.position),
    consistent: trailer.consistent,
    writtenBytes: opened.reduce((sum, { file }) => sum + file.trailer.dataBlocks, 0) * BLOCK_BYTES,
    verified: flags.verify,
  };
}

async function cleared(volume: Volume, signal: AbortSignal): Promise<void> {
  const zeroing = new Progress('zeroing');
  await zeroAll(volume, signal, (done) => zeroing.update(done, volume.sizeBytes)).finally(() => zeroing.stop());
}

/** Stdin is written as it comes: it is known to be whole only at its end. */
async function importStream(target: string, opened: readonly Opened[], flags: ImportFlags): Promise<Imported> {
  const file = 'stdin';
  const stdin = process.stdin as AsyncIterable<Buffer>;
  let sizeBytes = 0;
  const records = readBackup(stdin, file, (header) => {
    checkChain(
      opened.map((one) => one.file),
      { file, header },
    );
    sizeBytes = header.sizeBytes;
  });
  const first = await records.next();
  if (first.done === true) throw badFile(file, 'it holds no pass');
  return withTarget(target, sizeBytes, flags, async (volume, signal) => {
    const imported = opened.length === 0 ? null : await writeAll(volume, opened, flags, signal);
    if (imported === null) await cleared(volume, signal);
    const writer = new VolumeWriter(volume, signal);
    const progress = new Progress('writing');
    try {
      let next: IteratorResult<Parameters<VolumeWriter['write']>[0], Verified> = first;
      for (; next.done !== true; next = await records.next()) {
        await writer.write(next.value, flags.verify);
        progress.note(next.value.offsetBytes);
      }
      await writer.settled();
      const { trailer } = next.value;
      refuseFuzzyStream(trailer.consistent, flags);
      return {
        volume: volume.name,
        position: formatPosition(trailer.position),
        consistent: trailer.consistent,
        writtenBytes: (imported?.writtenBytes ?? 0) + trailer.dataBlocks * BLOCK_BYTES,
        verified: flags.verify,
      };
    } finally {
      progress.stop();
    }
  });
}

function refuseFuzzyStream(consistent: boolean, flags: ImportFlags): void {
  if (consistent || flags.fuzzy) return;
  throw wrong('import', 'stdin is fuzzy: its blocks are of different moments, and they are written', 'give --fuzzy');
}

// --- the commands -----------------------------------------------------------------------------------------------------------

export function addBackupCommands(volume: Command, run: Run): void {
  volume
    .command('export <volume> <file>')
    .description('a served volume as it was at one moment, into a file, or - for stdout; clients may go on')
    .option('--since <mark>', 'only what changed since that mark was set: an incremental backup')
    .option('--mark <name>', 'set that mark when the copy begins, for the next incremental backup')
    .option('--passes <n>', 'copy again what was written meanwhile, up to so often, before writers are paused', '5')
    .option('--hold <ms>', 'when little is left: hold back what clients write, for at most so long')
    .option('--pause-hook <command>', 'run when little is left: stops the writers, e.g. fsfreeze -f /mnt')
    .option('--resume-hook <command>', 'run right after it, whatever happened: lets them go on')
    .option('--fuzzy', 'if it is written to all the time: keep a copy of blocks of different moments, which says so')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast volume export holdfast://127.0.0.1:7401/vm1 monday.hfb --mark monday\n' +
        '  holdfast volume export holdfast://127.0.0.1:7401/vm1 tuesday.hfb --since monday --mark tuesday',
    )
    .action((url: string, file: string, flags: ExportFlags) => run(() => exportTo(url, file, flags), flags.json));
  addCoordinatorOption(volume.command('import <volume> <files...>'))
    .description('a full backup, and the incremental ones that follow it, into a volume; - is stdin')
    .option('--create', 'make the volume: VOLUME is its name, in the cluster of --coordinator')
    .option('--replicas <count>', 'with --create: how many nodes hold it; default 2')
    .option('--allow-sparse', 'with --create: reserve nothing: for tests')
    .option('--larger', 'the volume may be larger than the one of the backup')
    .option('--overwrite', 'all that the volume holds may be lost')
    .option('--fuzzy', 'also a backup whose blocks are of different moments')
    .option('--no-verify', 'do not read back what was written')
    .option('--spool <dir>', 'where stdin is kept until it is verified; default: the folder for temporary files')
    .option('--trust-stream', 'write stdin as it comes: it is found to be damaged only when a part of it is written')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast volume import holdfast://127.0.0.1:7401/vm2 monday.hfb tuesday.hfb\n' +
        '  holdfast volume import vm2 monday.hfb --create --replicas 2 --coordinator holdfast://10.0.0.9:7400',
    )
    .action((target: string, files: string[], flags: ImportFlags) =>
      run(() => importFrom(target, files, flags), flags.json),
    );
  volume
    .command('backup-info <files...>')
    .description('verify backup files, say what they are, and whether several are a chain; - is stdin')
    .option('--spool <dir>', 'where stdin is kept meanwhile')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExample:\n  holdfast volume backup-info monday.hfb tuesday.hfb')
    .action((files: string[], flags: { spool?: string; json?: boolean }) =>
      run(() => backupInfo(files, flags), flags.json),
    );
}

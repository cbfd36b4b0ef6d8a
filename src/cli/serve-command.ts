/** `holdfast serve DIR` and `holdfast demo`: one node, no coordinator. */
import type { Command } from 'commander';
import { pino } from 'pino';
import { formatBytes } from '../base/units.ts';
import type { HoldfastError } from '../base/errors.ts';
import { SingleNode } from '../node/single-node.ts';
import type { Log } from '../node/server.ts';
import { isVolume } from '../storage/volume-folder.ts';
import { type InsecureFlag, addInsecureOption, checkPorts, clientPort, nbdPort } from './exposed-ports.ts';
import { type NbdTlsFlags, addNbdTlsOptions, nbdTlsOf } from './nbd-tls-flags.ts';
import { Progress, printJson } from './output.ts';
import { type TlsFlags, addClientCertOption, addTlsOptions, clientCertOf, portTlsOf } from './tls-flags.ts';
import { type TokensFlag, addTokensOption, tokensOf } from './token-command.ts';
import { createWithProgress, parseDurability } from './volume-command.ts';
import { toldToStop } from './signals.ts';

/** Exit code after a failed disk or a lost worker: EX_IOERR of sysexits. */
const EXIT_FATAL = 74;

export interface ServeFlags extends NbdTlsFlags, InsecureFlag, TlsFlags, TokensFlag {
  size?: string;
  name?: string;
  listen: string;
  nbd?: string;
  readOnly?: boolean;
  allowSparse?: boolean;
  durability?: string;
  logLevel: string;
  json?: boolean;
}

export async function serve(dir: string, flags: ServeFlags, hint?: (node: SingleNode) => string): Promise<void> {
  const logger = pino({ level: flags.logLevel }, pino.destination(2));
  const log: Log = (level, message, fields) => logger[level](fields, message);
  const nbdTls = await nbdTlsOf(flags, flags.nbd !== undefined, log);
  const tls = await portTlsOf(flags, log);
  const tokens = await tokensOf(flags, log);
  checkPorts([clientPort(flags, tls !== null), ...nbdPort('--nbd', flags.nbd, nbdTls)], flags, tokens !== null);
  const progress = new Progress('replaying the journal');
  const durable = parseDurability(flags.durability);
  const node = await SingleNode.start({
    dir,
    listen: flags.listen,
    nbd: flags.nbd,
    nbdTls,
    tls,
    clientCert: clientCertOf(flags),
    tokens,
    readOnly: flags.readOnly ?? false,
    durable,
    log,
    progress: (bytes) => progress.note(bytes),
    prepare: async (pool) => {
      if (flags.size === undefined || (await isVolume(dir))) return;
      const { size, name, allowSparse, durability } = flags;
      await createWithProgress(pool, dir, {
        size,
        ...(name !== undefined && { name }),
        ...(allowSparse !== undefined && { allowSparse }),
        ...(durability !== undefined && { durability }),
      });
    },
    onFatal: (error: HoldfastError) => {
      process.stderr.write(`holdfast: ${error.message}\n`);
      if (flags.json) printJson({ event: 'fatal', error: error.toJSON() });
      process.exit(EXIT_FATAL);
    },
  });
  const stopped = toldToStop();
  progress.stop();
  const { store, recovered } = node.open;
  const info = node.volume.info();
  if (flags.json) {
    printJson({
      event: 'listening',
      listen: node.address,
      ...(node.nbdUri === null ? {} : { nbd: node.nbdUri }),
      volume: info.name,
      sizeBytes: info.sizeBytes,
      readOnly: info.readOnly,
      epoch: info.epoch,
      durability: store.durable ? 'always' : 'none',
      health: store.health,
      recovered: recovered === null ? null : { records: recovered.records, bytes: recovered.bytes },
      pid: process.pid,
    });
  } else {
    if (recovered !== null) {
      process.stdout.write(
        `recovered: ${recovered.records} records replayed (${formatBytes(recovered.bytes)} of journal)\n`,
      );
    }
    if (store.health !== 'good') {
      process.stdout.write(`READ-ONLY: the volume is ${store.health}: ${store.healthReason}\n`);
      process.stdout.write(`  to remedy: holdfast volume check ${dir} --accept-loss\n`);
    }
    if (!store.durable) process.stdout.write('NOT DURABLE: --durability none is for measuring only\n');
    process.stdout.write(
      `serving ${info.name} (${formatBytes(info.sizeBytes)}) on ${tls === null ? 'holdfast' : 'holdfasts'}://${node.address}/${info.name}\n`,
    );
    if (hint !== undefined) process.stdout.write(hint(node));
  }
  await stopped;
  if (!flags.json) process.stdout.write('stopping\n');
  if (await node.close()) return;
  process.stderr.write('holdfast: the disk is full; what could not be put in place waits in the journal\n');
  process.exit(0);
}

const DEMO_DIR = './holdfast-data/demo';

async function demo(flags: ServeFlags): Promise<void> {
  await serve(DEMO_DIR, { ...flags, size: flags.size ?? '1GiB' }, (node) => {
    const url = `holdfast://${node.address}/demo`;
    const cli = 'node dist/src/cli/main.js';
    return [
      '',
      'To try, in a second shell in this folder:',
      `  ${cli} write ${url} --offset 0 < some-file          write a file into the volume`,
      `  ${cli} read ${url} --offset 0 --length 1MiB | sha256sum   read it back`,
      `  kill -9 ${process.pid}; ${cli} demo                         crash the server: what was acknowledged is still there`,
      `  ${cli} bench read --url ${url}                      measure it`,
      `The volume lies in ${DEMO_DIR}; stop with Ctrl-C, then: ${cli} volume check ${DEMO_DIR}`,
      '',
    ].join('\n');
  });
}

export function addServeCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const flags = (command: Command): Command =>
    addNbdTlsOptions(
      addTokensOption(addClientCertOption(addTlsOptions(addInsecureOption(command))))
        .option('--listen <host:port>', 'where clients connect', process.env['HOLDFAST_LISTEN'] ?? '127.0.0.1:7401')
        .option('--nbd <host:port>', 'export the volume over NBD too; or unix:PATH'),
    )
      .option('--durability <mode>', 'always | none (measuring only: a crash of the machine loses acknowledged writes)')
      .option(
        '--log-level <level>',
        'trace | debug | info | warn | error | silent',
        process.env['HOLDFAST_LOG_LEVEL'] ?? 'info',
      )
      .option('--json', 'print events as JSON, one a line');
  flags(
    program
      .command('serve <dir>')
      .description('serve the volume in a folder; with --size it is made if it is not there')
      .option('--size <size>', 'make the volume with this size if the folder holds none')
      .option('--name <name>', 'name of a new volume; default: as the folder is called')
      .option('--read-only', 'refuse writes')
      .option('--allow-sparse', 'a new volume reserves nothing (tests)'),
  )
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast serve ./vm1 --size 10GiB\n  holdfast serve ./vm1 --listen 0.0.0.0:7401 --insecure',
    )
    .action((dir: string, f: ServeFlags) => run(() => serve(dir, f), f.json));
  flags(
    program.command('demo').description(`serves a volume in ${DEMO_DIR}, by itself`).option('--size <size>'),
  ).action((f: ServeFlags) => run(() => demo(f), f.json));
}

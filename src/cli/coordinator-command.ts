/** `holdfast coordinator`: the embedded coordinator as a process. */
import type { Command } from 'commander';
import { pino } from 'pino';
import { HoldfastError } from '../base/errors.ts';
import { EmbeddedServer } from '../coordination/embedded-server.ts';
import { COORDINATOR_PORT } from '../coordination/open.ts';
import { listenWithTls } from '../node/coordinator-tls.ts';
import { listenOn } from '../node/listen.ts';
import type { Log } from '../node/server.ts';
import { type InsecureFlag, addInsecureOption, checkPorts, ownPort } from './exposed-ports.ts';
import { printJson } from './output.ts';
import { type TlsFlags, addTlsOptions, portTlsOf } from './tls-flags.ts';
import { addRecoverCommand } from './recover-command.ts';
import { toldToStop } from './signals.ts';

/** Exit code after a failed disk: EX_IOERR of sysexits. */
const EXIT_FATAL = 74;

interface CoordinatorFlags extends InsecureFlag, TlsFlags {
  dir?: string;
  listen: string;
  logLevel: string;
  json?: boolean;
}

async function coordinator(flags: CoordinatorFlags): Promise<void> {
  const { dir } = flags;
  // Not required of the commands below it.
  if (dir === undefined) {
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'start the coordinator', detail: 'no --dir' });
  }
  const logger = pino({ level: flags.logLevel }, pino.destination(2));
  const log: Log = (level, message, fields) => logger[level](fields, message);
  const tls = await portTlsOf(flags, log);
  checkPorts([ownPort('--listen', flags.listen, tls !== null)], flags);
  let front: Awaited<ReturnType<typeof listenWithTls>> | null = null;
  const server = await EmbeddedServer.start({
    dir,
    listen: async (http) => {
      if (tls === null) return listenOn(http, flags.listen);
      front = await listenWithTls(http, flags.listen, tls, log);
      return front.address;
    },
    log,
    onFatal: (error: HoldfastError) => {
      process.stderr.write(`holdfast: ${error.message}\n`);
      if (flags.json) printJson({ event: 'fatal', error: error.toJSON() });
      process.exit(EXIT_FATAL);
    },
  });
  const stopped = toldToStop();
  const { address, volumes } = server;
  const scheme = tls === null ? 'holdfast' : 'holdfasts';
  if (flags.json) {
    printJson({ event: 'listening', listen: address, volumes, pid: process.pid });
  } else {
    process.stdout.write(`coordinating ${volumes} ${volumes === 1 ? 'volume' : 'volumes'} on ${scheme}://${address}\n`);
  }
  await stopped;
  if (flags.json) printJson({ event: 'stopping' });
  else process.stdout.write('stopping\n');
  await Promise.all([server.close(), (front as Awaited<ReturnType<typeof listenWithTls>> | null)?.close()]);
  tls?.close();
}

export function addCoordinatorCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const command = program
    .command('coordinator')
    .description('keeps who may be primary of each volume; once per cluster, on a third machine')
    .option('--dir <dir>', 'its folder, made if it is not there')
    .option('--listen <host:port>', 'where nodes connect', `127.0.0.1:${COORDINATOR_PORT}`)
    .option(
      '--log-level <level>',
      'trace | debug | info | warn | error | silent',
      process.env['HOLDFAST_LOG_LEVEL'] ?? 'info',
    )
    .option('--json', 'print events as JSON, one a line')
    .addHelpText('after', '\nExample:\n  holdfast coordinator --dir ./coordinator --listen 10.0.0.9:7400 --insecure')
    .action((flags: CoordinatorFlags) => run(() => coordinator(flags), flags.json));
  addTlsOptions(addInsecureOption(command));
  addRecoverCommand(command, run);
}

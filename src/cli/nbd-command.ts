/**
 * `holdfast nbd VOLUME`: an NBD gateway beside the application, the client library to the server. It outlives the
 * server's crashes and restarts; its NBD clients see a pause.
 */
import type { Command } from 'commander';
import { pino } from 'pino';
import { HoldfastError } from '../base/errors.ts';
import { formatBytes } from '../base/units.ts';
import { DEFAULT_CONNECTIONS, Gateway } from '../gateway/gateway.ts';
import type { Log } from '../node/server.ts';
import { type InsecureFlag, addInsecureOption, checkPorts, nbdPort } from './exposed-ports.ts';
import { type NbdTlsFlags, addNbdTlsOptions, nbdTlsOf } from './nbd-tls-flags.ts';
import { printJson } from './output.ts';

interface NbdFlags extends NbdTlsFlags, InsecureFlag {
  listen: string;
  readOnly?: boolean;
  connections: string;
  retry?: string;
  reads: string;
  logLevel: string;
  json?: boolean;
}

const UNIT_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `30s`, `500ms`, `1.5h`. @returns milliseconds. @throws HoldfastError INVALID_ARGUMENT */
export function parseDuration(name: string, text: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(text.trim());
  if (match !== null) return Math.round(Number(match[1]) * UNIT_MS[match[2]!]!);
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: `parse --${name}`,
    detail: `"${text}"`,
    remedy: 'write a number with ms, s, m, h or d, e.g. 30s',
  });
}

/** @throws HoldfastError INVALID_ARGUMENT */
function readsOf(text: string): 'primary' | 'any' {
  if (text === 'primary' || text === 'any') return text;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --reads',
    detail: `"${text}"`,
    remedy: 'write primary or any',
  });
}

async function nbd(url: string, flags: NbdFlags): Promise<void> {
  const logger = pino({ level: flags.logLevel }, pino.destination(2));
  const log: Log = (level, message, fields) => logger[level](fields, message);
  const tls = await nbdTlsOf(flags, true, log);
  checkPorts(nbdPort('--listen', flags.listen, tls), flags);
  let failed: HoldfastError | null = null;
  let stop!: () => void;
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  const gateway = await Gateway.start({
    url,
    listen: flags.listen,
    readOnly: flags.readOnly,
    tls,
    connections: Number(flags.connections),
    reads: readsOf(flags.reads),
    retryMs: flags.retry === undefined ? undefined : parseDuration('retry', flags.retry),
    log,
    onEnded: (error) => {
      failed = error;
      stop();
    },
  });
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  const { volume, nbdUri, readOnly } = gateway;
  if (flags.json) {
    printJson({
      event: 'listening',
      nbd: nbdUri,
      volume: volume.name,
      sizeBytes: volume.sizeBytes,
      readOnly,
      pid: process.pid,
    });
  } else {
    const how = readOnly ? ', read-only' : '';
    process.stdout.write(`${volume.name} (${formatBytes(volume.sizeBytes)}${how}) for NBD clients: ${nbdUri}\n`);
    process.stdout.write(`  try: nbdinfo '${nbdUri}'\n`);
  }
  await stopped;
  if (flags.json) printJson({ event: 'stopping' });
  else process.stdout.write('stopping\n');
  const closed = await gateway.close();
  if (failed !== null) throw failed as HoldfastError;
  if (closed) return;
  process.stderr.write('holdfast: the server is silent; requests under way were left without an answer\n');
  process.exit(0);
}

export function addNbdCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const command = program
    .command('nbd <volume>')
    .description('a gateway: NBD for programs here, to a volume holdfast://host:port/name')
    .option('--listen <host:port>', 'where NBD clients connect; or unix:PATH', '127.0.0.1:10809')
    .option('--read-only', 'export it read-only, whatever the volume allows');
  addNbdTlsOptions(addInsecureOption(command))
    .option('--connections <n>', 'connections to the server', String(DEFAULT_CONNECTIONS))
    .option(
      '--retry <duration>',
      'fail requests when the server is away for so long, e.g. 30s; default: wait without limit',
    )
    .option('--reads <policy>', 'who answers reads: primary, or any replica that is in sync', 'primary')
    .option(
      '--log-level <level>',
      'trace | debug | info | warn | error | silent',
      process.env['HOLDFAST_LOG_LEVEL'] ?? 'info',
    )
    .option('--json', 'print events as JSON, one a line')
    .addHelpText(
      'after',
      '\nExamples:\n  holdfast nbd holdfast://10.0.0.5:7401/vm1\n' +
        '  holdfast nbd holdfast://10.0.0.5:7401/vm1 --listen unix:/run/vm1.sock --read-only',
    )
    .action((url: string, flags: NbdFlags) => run(() => nbd(url, flags), flags.json));
}

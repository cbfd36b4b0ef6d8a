/** `holdfast node`: a node of a cluster as a process. */
import type { Command } from 'commander';
import { pino } from 'pino';
import { HoldfastError } from '../base/errors.ts';
import { parseSize } from '../base/units.ts';
import { DEFAULT_TIMES } from '../replication/rules.ts';
import { DEFAULT_SYNC_RATES } from '../replication/sync-pace.ts';
import type { Coordinator } from '../coordination/register.ts';
import { ClusterNode } from '../node/cluster-node.ts';
import type { Exposed } from '../node/exposure.ts';
import { Faults } from '../node/faults.ts';
import type { NbdTls } from '../node/nbd-tls.ts';
import type { Log } from '../node/server.ts';
import {
  type InsecureFlag,
  addInsecureOption,
  checkPorts,
  clientPort,
  nbdPort,
  ownPort,
  respPort,
} from './exposed-ports.ts';
import { addCoordinatorOption, coordinatorOf } from './coordinator-flags.ts';
import { type NbdTlsFlags, addNbdTlsOptions, nbdTlsOf } from './nbd-tls-flags.ts';
import { type HttpFlags, addHttpOptions, checkHttp, startHttp } from './http-port.ts';
import { kvLimitsOf, kvPortOf, kvTlsOf } from './kv-port.ts';
import { Progress, printJson } from './output.ts';
import { type TokensFlag, addTokensOption, tokensOf } from './token-command.ts';
import { type TlsFlags, addClientCertOption, addTlsOptions, clientCertOf, portTlsOf } from './tls-flags.ts';
import { toldToStop } from './signals.ts';

/** Exit code after a lost worker: EX_IOERR of sysexits. */
const EXIT_FATAL = 74;
/** For calls to the coordinator that no failover waits for. */
const PATIENT_MS = 5000;

export interface NodeFlags extends NbdTlsFlags, InsecureFlag, TlsFlags, TokensFlag, HttpFlags {
  nodeTokenFile?: string;
  name: string;
  dir: string;
  coordinator?: string;
  listen: string;
  peerListen: string;
  nbd?: string;
  kv?: string;
  kvVolume: string;
  kvPasswordFile?: string;
  kvMaxKey?: string;
  kvMaxValue?: string;
  whenIsolated: string;
  scrubDays: string;
  advertise?: string;
  registerMs: string;
  heartbeatMs: string;
  promiseMs: string;
  suspicionMs: string;
  syncRate?: string;
  enableFaults?: boolean;
  logLevel: string;
  json?: boolean;
}

function millisecondsOf(name: string, text: string): number {
  const ms = Number(text);
  if (Number.isSafeInteger(ms) && ms >= 10 && ms <= 60_000) return ms;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: `parse ${name}`,
    detail: `"${text}" is not a number of milliseconds from 10 to 60000`,
  });
}

/** @throws HoldfastError INVALID_ARGUMENT */
function whenIsolatedOf({ whenIsolated }: NodeFlags): 'consistent' | 'available' {
  if (whenIsolated === 'consistent' || whenIsolated === 'available') return whenIsolated;
  throw new HoldfastError('INVALID_ARGUMENT', {
    operation: 'parse --when-isolated',
    detail: `"${whenIsolated}"`,
    remedy: 'write consistent, or available',
  });
}

/** @throws HoldfastError INVALID_ARGUMENT */
function scrubMsOf({ scrubDays }: NodeFlags): number {
  const days = Number(scrubDays);
  if (/^\d{1,4}(\.\d{1,6})?$/.test(scrubDays)) return days * 24 * 3600 * 1000;
  const remedy = 'write a number of days, or 0 for none';
  throw new HoldfastError('INVALID_ARGUMENT', { operation: 'parse --scrub-days', detail: `"${scrubDays}"`, remedy });
}

/** @throws HoldfastError INVALID_ARGUMENT for a point that is not there */
function faultsOf({ enableFaults }: NodeFlags, log: Log): Faults | undefined {
  if (enableFaults !== true) return undefined;
  log('warn', 'this node takes faults: whoever reaches it can kill it', {});
  return new Faults((message, fields) => log('warn', `fault: ${message}`, fields), process.env['HOLDFAST_CRASH_AT']);
}

function portsOf(flags: NodeFlags, tls: boolean, nbdTls: NbdTls | null): Exposed[] {
  const { peerListen, nbd, kv } = flags;
  const own = [clientPort(flags, tls), ownPort('--peer-listen', peerListen, tls)];
  const password = flags.kvPasswordFile !== undefined || Boolean(process.env['HOLDFAST_KV_PASSWORD']);
  const wants = kvTlsOf(flags, tls) ? clientCertOf(flags) : null;
  return [...own, ...nbdPort('--nbd', nbd, nbdTls), ...respPort('--kv', kv, password, wants)];
}

async function node(flags: NodeFlags): Promise<void> {
  const logger = pino({ level: flags.logLevel, base: { pid: process.pid, node: flags.name } }, pino.destination(2));
  const log: Log = (level, message, fields) => logger[level](fields, message);
  const nbdTls = await nbdTlsOf(flags, flags.nbd !== undefined, log);
  const tls = await portTlsOf(flags, log);
  tls?.checkOwn(flags.name);
  const tokens = await tokensOf(flags, log);
  checkPorts(portsOf(flags, tls !== null, nbdTls), flags, tokens !== null);
  checkHttp(flags, { tls, tokens });
  const deadlineMs = millisecondsOf('registerMs', flags.registerMs);
  const [heartbeatMs, promiseMs, suspicionMs] = (['heartbeatMs', 'promiseMs', 'suspicionMs'] as const).map((name) =>
    millisecondsOf(name, flags[name]),
  ) as [number, number, number];
  const gatherMs = Math.max(DEFAULT_TIMES.gatherMs, promiseMs + heartbeatMs);
  const most = flags.syncRate === undefined ? Infinity : parseSize(flags.syncRate);
  const progress = new Progress('replaying the journal');
  const faults = faultsOf(flags, log);
  const cuttable = (inner: Coordinator, ms: number): Coordinator => faults?.coordinator(inner, ms) ?? inner;
  const quick = coordinatorOf(flags, { deadlineMs, connectMs: deadlineMs, attemptMs: deadlineMs / 2 });
  const running = await ClusterNode.start({
    name: flags.name,
    dir: flags.dir,
    listen: flags.listen,
    peerListen: flags.peerListen,
    nbd: flags.nbd,
    nbdTls,
    tls,
    clientCert: clientCertOf(flags),
    tokens,
    whenIsolated: whenIsolatedOf(flags),
    scrubMs: scrubMsOf(flags),
    kvLimits: kvLimitsOf(flags),
    kv: await kvPortOf(flags, () => running, tls !== null),
    advertise: flags.advertise,
    times: { heartbeatMs, promiseMs, suspicionMs, gatherMs },
    syncRates: { ...DEFAULT_SYNC_RATES, most },
    quick: cuttable(quick, deadlineMs),
    patient: cuttable(coordinatorOf(flags, { deadlineMs: PATIENT_MS }), PATIENT_MS),
    faults,
    log,
    progress: (bytes) => progress.note(bytes),
    onFatal: (error: HoldfastError) => {
      process.stderr.write(`holdfast: ${error.message}\n`);
      if (flags.json) printJson({ event: 'fatal', error: error.toJSON() });
      process.exit(EXIT_FATAL);
    },
  });
  progress.stop();
  const stopped = toldToStop();
  const openHttp = (ms: number): Coordinator => cuttable(coordinatorOf(flags, { deadlineMs: ms }), ms);
  const http = await startHttp(flags, { tls, tokens }, running, openHttp, log);
  const { clientAddress, address, nbdUri, kvAddress, hosted, unopened } = running;
  const volumes = [...hosted.values()].map(({ name }) => name);
  if (flags.json) {
    const ports = {
      ...(nbdUri !== null && { nbd: nbdUri }),
      ...(kvAddress !== null && { kv: kvAddress }),
      ...http.told,
    };
    const about = { node: flags.name, listen: clientAddress, peerListen: address, ...ports };
    printJson({ event: 'listening', ...about, volumes, unopened, pid: process.pid });
  } else {
    process.stdout.write(`node ${flags.name}: clients on ${clientAddress}, nodes on ${address}\n`);
    if (kvAddress !== null) process.stdout.write(`  clients of Redis on ${kvAddress}\n`);
    if (http.told.http !== undefined) process.stdout.write(`  dashboard and metrics on ${http.told.http}\n`);
    process.stdout.write(`  volumes: ${volumes.join(', ') || 'none yet'}\n`);
    for (const { dir, reason } of unopened) process.stdout.write(`  NOT HOSTED: ${dir}: ${reason}\n`);
  }
  await stopped;
  if (flags.json) printJson({ event: 'stopping' });
  else process.stdout.write('stopping\n');
  await http.close();
  await running.close();
}

export function addNodeCommand(
  program: Command,
  run: (work: () => Promise<void>, json?: boolean) => Promise<void>,
): void {
  const command = program
    .command('node')
    .description('a node of a cluster: hosts replicas of volumes')
    .requiredOption('--name <name>', 'of this node, the same at each start')
    .requiredOption('--dir <dir>', 'its folder, made if it is not there');
  addCoordinatorOption(command);
  addTokensOption(addClientCertOption(addTlsOptions(addInsecureOption(command)))).option(
    '--node-token-file <file>',
    'the token that this node gives the others when it forwards; not needed with TLS',
  );
  addHttpOptions(command);
  addNbdTlsOptions(
    command
      .option('--listen <host:port>', 'where clients connect', process.env['HOLDFAST_LISTEN'] ?? '127.0.0.1:7401')
      .option('--peer-listen <host:port>', 'where the other nodes connect', '127.0.0.1:7441')
      .option('--advertise <host>', 'name or address of this machine, told to others instead of the listening one')
      .option('--nbd <host:port>', 'export the volumes over NBD too; or unix:PATH'),
  )
    .option('--kv <host:port>', 'take clients of Redis there, for a key-value volume')
    .option('--kv-volume <name>', 'of --kv; default: the only key-value volume that this node hosts', '')
    .option('--kv-password-file <file>', 'of --kv; or in HOLDFAST_KV_PASSWORD; default: none')
    .option(
      '--kv-tls <policy>',
      'of --kv: require, with the certificates of this node, or off; default: require beyond loopback, if it has any',
    )
    .option('--kv-max-key <size>', 'bytes of a key that is written, at most; default: 4KiB, which is the most')
    .option('--kv-max-value <size>', 'bytes of a value that is written, at most; default: 192KiB, which is the most')
    .option(
      '--when-isolated <choice>',
      'of key-value volumes: consistent, or available: answer GETs, marked as stale, when no other replica is reached',
      'consistent',
    )
    .option('--scrub-days <n>', 'all blocks are read once in so many days, to find what has rotted; 0: never', '7')
    .option('--sync-rate <size>', 'bytes per second of a reintegration, at most; default: as fast as it goes')
    .option('--heartbeat-ms <ms>', 'how often a primary is heard of', String(DEFAULT_TIMES.heartbeatMs))
    .option(
      '--promise-ms <ms>',
      'how long a backup seeks no promotion after a heartbeat',
      String(DEFAULT_TIMES.promiseMs),
    )
    .option(
      '--suspicion-ms <ms>',
      'how long a primary may be silent; above the promise',
      String(DEFAULT_TIMES.suspicionMs),
    )
    .option('--register-ms <ms>', 'how long a call to the coordinator may take in a failover', '300')
    .option('--enable-faults', 'for tests: take what `holdfast fault` asks for')
    .option(
      '--log-level <level>',
      'trace | debug | info | warn | error | silent',
      process.env['HOLDFAST_LOG_LEVEL'] ?? 'info',
    )
    .option('--json', 'print events as JSON, one a line')
    .addHelpText(
      'after',
      '\nExample:\n  holdfast node --name a --dir ./a --listen 10.0.0.1:7401 --peer-listen 10.0.0.1:7441 --insecure \\\n' +
        '      --coordinator holdfast://10.0.0.9:7400',
    )
    .action((flags: NodeFlags) => run(() => node(flags), flags.json));
}

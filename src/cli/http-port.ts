/** The HTTP port of `holdfast node`: its flags, whom it lets in, and how it looks at the cluster. */
import type { Socket } from 'node:net';
import type { Command } from 'commander';
import type { HoldfastError } from '../base/errors.ts';
import type { Coordinator } from '../coordination/register.ts';
import type { Door, Front } from '../http/http-server.ts';
import type { ClusterNode } from '../node/cluster-node.ts';
import { type Exposed, isLoopback } from '../node/exposure.ts';
import { HttpDoor } from '../node/http-door.ts';
import { parseAddress } from '../node/listen.ts';
import type { PortTls } from '../node/port-tls.ts';
import type { Log } from '../node/server.ts';
import { TlsFront } from '../node/tls-front.ts';
import type { Tokens } from '../node/tokens.ts';
import { lookAt } from './cluster-status.ts';
import { checkPorts, httpPort } from './exposed-ports.ts';
import { type TlsFlags, clientCertOf, speaksTls } from './tls-flags.ts';

export interface HttpFlags extends TlsFlags {
  http?: string;
  httpHost?: string[];
  httpTls?: string;
  httpInsecure?: boolean;
}

/** A node that answers later is shown as one that does not. */
const ANSWER_MS = 1000;
/** For the coordinator. */
const LOOK_MS = 1500;
const HANDSHAKE_MS = 10_000;

export function addHttpOptions(command: Command): Command {
  return command
    .option('--http <host:port>', 'dashboard and metrics there; default: none')
    .option('--http-host <name...>', 'names that the port of --http may be called by, besides localhost')
    .option(
      '--http-tls <policy>',
      'of --http: require, with the certificates of this node, or off; default: require beyond loopback, if it has any',
    )
    .option('--http-insecure', 'the port of --http may be reached from other machines without TLS, or by anybody');
}

/** What protects a port of the node. */
export interface Protection {
  tls: PortTls | null;
  tokens: Tokens | null;
}

/** Somebody has to show something: on loopback, nobody has. */
function asks({ http, ...flags }: HttpFlags, { tls, tokens }: Protection): boolean {
  if (http === undefined || isLoopback(http)) return false;
  if (tokens !== null) return true;
  return speaksTls('--http-tls', http, flags.httpTls, tls !== null) && clientCertOf(flags) === 'require';
}

/** Before anything is begun. @throws HoldfastError INVALID_ARGUMENT, ACCESS */
export function checkHttp(flags: HttpFlags, protection: Protection): void {
  const { http, httpInsecure, httpTls } = flags;
  if (http !== undefined) parseAddress(http);
  const secure = speaksTls('--http-tls', http, httpTls, protection.tls !== null);
  const ports: Exposed[] = httpPort(http, secure, asks(flags, protection));
  checkPorts(ports, { insecure: httpInsecure === true }, protection.tokens !== null);
}

export interface StartedHttp {
  /** For what the node prints. */
  told: { http?: string };
  /** To be called before the node is closed. */
  close(): Promise<void>;
}

function frontOf(tls: PortTls, log: Log): (accept: (socket: Socket) => void) => Front {
  return (accept) =>
    new TlsFront({
      tls,
      port: 'HTTP',
      // Whoever has none may come with a token, or ask whether the node lives.
      wants: 'any',
      handshakeMs: HANDSHAKE_MS,
      lastWord,
      accept,
      log,
      remedy: 'write https://',
    });
}

function lastWord({ message }: HoldfastError): Uint8Array {
  const text = `${message}\n`;
  const head = `content-type: text/plain; charset=utf-8\r\ncontent-length: ${Buffer.byteLength(text)}`;
  return Buffer.from(`HTTP/1.1 403 Forbidden\r\n${head}\r\nconnection: close\r\n\r\n${text}`);
}

/**
 * Where the flags want it. The node is closed if that fails.
 * @param open a coordinator that is asked within LOOK_MS
 * @throws HoldfastError BUSY, ACCESS
 */
export async function startHttp(
  flags: HttpFlags,
  protection: Protection,
  node: ClusterNode,
  open: (deadlineMs: number) => Coordinator,
  log: Log,
): Promise<StartedHttp> {
  const { http, httpHost, httpTls } = flags;
  if (http === undefined) return { told: {}, close: async () => {} };
  const coordinator = open(LOOK_MS);
  const { tls, tokens } = protection;
  const door: (Door & { close(): void }) | null = asks(flags, protection) ? new HttpDoor({ tokens, log }) : null;
  const front = speaksTls('--http-tls', http, httpTls, tls !== null) ? frontOf(tls!, log) : null;
  try {
    const look = (): Promise<object> => lookAt(coordinator, ANSWER_MS);
    const names = httpHost ?? [];
    // Loaded only where it is wanted: every other command starts without it.
    const { HttpPort } = await import('../http/http-server.ts');
    const port = await HttpPort.start({ ...parseAddress(http), names, door, front, node, look });
    const close = async (): Promise<void> => {
      door?.close();
      await port.close();
      await coordinator.close();
    };
    return { told: { http: port.url }, close };
  } catch (error) {
    await coordinator.close();
    await node.close();
    throw error;
  }
}

/**
 * TLS of an NBD port: who may speak it, with which certificates and keys, and the server's side of its handshake.
 *
 * Guarantees: what cannot work or would protect nothing is refused when it is loaded, with the file and the line, and
 * no key is ever printed; new content of the files is in force for new connections without a restart; TLS 1.2 is the least; where a CA is given, nobody without a certificate that it signed gets
 * through, but for those who know a pre-shared key.
 */
import type { Socket } from 'node:net';
import { type TLSSocket, type TlsOptions, createServer } from 'node:tls';
import { HoldfastError } from '../base/errors.ts';
import type { TlsPolicy } from '../nbd/negotiation.ts';
import { TlsFiles } from './tls-files.ts';

/** Paths are of files in PEM, but for `pskFile`: lines `username:hexkey`, as psktool(1) makes them. */
export interface NbdTlsOptions {
  /** Default: `require` with credentials, `off` without. */
  policy?: TlsPolicy | undefined;
  certFile?: string | undefined;
  keyFile?: string | undefined;
  /** Clients must show a certificate that one of these signed. */
  caFile?: string | undefined;
  pskFile?: string | undefined;
}

/** Bounds of OpenSSL's, and the least that is no password. */
const MAX_USERNAME_BYTES = 128;
const MIN_KEY_BYTES = 16;
const MAX_KEY_BYTES = 256;
/** Of TLS 1.3, in order of preference. Keys that are given by a callback go with SHA-256 only. */
const CIPHERS = ['TLS_AES_128_GCM_SHA256', 'TLS_CHACHA20_POLY1305_SHA256', 'TLS_AES_256_GCM_SHA384'];
/** Of TLS 1.2: what keeps past traffic secret when a key becomes known. Node's own default list forbids PSK. */
const X509_CIPHERS = ['ECDHE+AESGCM', 'ECDHE+CHACHA20'];
/** From OpenSSL 3.5 on (Node 24) a server that has a certificate takes no pre-shared key. */
export const TAKES_BOTH: boolean = Number.parseFloat(process.versions.openssl) < 3.5;
/** The only two of that kind that GnuTLS and OpenSSL have in common. */
const PSK_CIPHERS = ['ECDHE-PSK-CHACHA20-POLY1305', 'ECDHE-PSK-AES128-CBC-SHA256'];

export class NbdTls {
  readonly policy: Exclude<TlsPolicy, 'off'>;
  /** Nobody gets in who is not known by a certificate or a key. */
  readonly authenticates: boolean;
  private options: TlsOptions;

  constructor(policy: Exclude<TlsPolicy, 'off'>, options: TlsOptions) {
    this.policy = policy;
    this.options = options;
    const known = options.ca !== undefined || options.pskCallback !== undefined;
    this.authenticates = policy === 'require' && known;
  }

  /** For connections from now on: the certificates and keys of that one, which was loaded from the same files. */
  renew(by: NbdTls): void {
    this.options = by.options;
  }

  /**
   * The server's side of a handshake. `socket` must not be read any more; what it holds already is taken as sent by TLS.
   * @param done called at most once. The connection of a failed handshake is closed; if it is closed from outside,
   * before or after, that counts as a failure too
   */
  accept(socket: Socket, done: (failure: string | null, secure: TLSSocket | null) => void): void {
    // A server of its own, which never listens, for each connection: it is the documented way to a handshake in which
    // certificates are verified, and it costs a millisecond. None of them resumes a session of another.
    const server = createServer(this.options);
    let over = false;
    const finish = (failure: string | null, secure: TLSSocket | null): void => {
      if (over) return;
      over = true;
      done(failure, secure);
    };
    server.on('tlsClientError', (error: NodeJS.ErrnoException & { reason?: string }, secure) => {
      // `reason` is OpenSSL's in a few words, where the message has its source file too.
      const unverified = secure.authorizationError as unknown as string | undefined;
      finish(unverified ?? error.reason ?? error.message, null);
      socket.destroy();
    });
    server.on('secureConnection', (secure) => finish(null, secure));
    server.emit('connection', socket);
  }
}

const FILES = new TlsFiles('set up TLS for NBD');

function refused(detail: string, remedy: string): HoldfastError {
  return FILES.refused(detail, remedy);
}

/**
 * Reads and verifies the files.
 * @returns null where TLS is off
 * @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR
 */
export async function loadNbdTls(options: NbdTlsOptions): Promise<NbdTls | null> {
  const { certFile, keyFile, caFile, pskFile } = options;
  const given = [certFile, keyFile, caFile, pskFile].some((file) => file !== undefined);
  const policy = options.policy ?? (given ? 'require' : 'off');
  if (policy === 'off') {
    if (!given) return null;
    throw refused('certificates or keys are given, and TLS is off', 'leave them away, or choose require or allow');
  }
  if (!given) {
    throw refused(
      `"${policy}" without a certificate or a pre-shared key`,
      'give a certificate and its key, or a file of pre-shared keys',
    );
  }
  if ((certFile === undefined) !== (keyFile === undefined)) {
    throw refused('a certificate and its private key go together, one is missing', 'give both files');
  }
  if (caFile !== undefined && certFile === undefined) {
    throw refused('a CA for clients, and no certificate for this server', 'give a certificate and its key too');
  }
  if (pskFile !== undefined && certFile !== undefined && caFile === undefined) {
    throw refused(
      'whoever has no pre-shared key could get in by the certificate of this server',
      'give a CA as well, so that clients without a key must show a certificate; or leave one of both away',
    );
  }
  if (certFile !== undefined && pskFile !== undefined && !TAKES_BOTH) {
    throw new HoldfastError('UNSUPPORTED', {
      operation: 'TLS',
      detail: `the OpenSSL of this Node, ${process.versions.openssl}, takes no pre-shared keys beside certificates`,
      remedy: 'use one of the two, or Node 20 or 22',
    });
  }
  const x509 = certFile === undefined ? {} : await loadCertificates(certFile, keyFile!, caFile);
  const psk = pskFile === undefined ? {} : await loadPsk(pskFile);
  const ciphers = [
    ...CIPHERS,
    ...(certFile === undefined ? [] : X509_CIPHERS),
    ...(pskFile === undefined ? [] : PSK_CIPHERS),
  ].join(':');
  return new NbdTls(policy, { minVersion: 'TLSv1.2', ciphers, ...x509, ...psk });
}

async function loadCertificates(certFile: string, keyFile: string, caFile?: string): Promise<TlsOptions> {
  const { cert, key, ca } = await FILES.load({ certFile, keyFile, caFile });
  return ca === null ? { cert, key } : { cert, key, ca, requestCert: true, rejectUnauthorized: true };
}

async function loadPsk(file: string): Promise<TlsOptions> {
  const keys = parsePsk(file, await FILES.text(file));
  return { pskCallback: (_socket, username) => keys.get(username) ?? null };
}

/**
 * The keys by username. A name that begins with `#` is in hexadecimal, as GnuTLS has it, so there are no comments.
 * @throws HoldfastError INVALID_ARGUMENT, which names the line and never the key
 */
export function parsePsk(file: string, text: string): Map<string, Buffer> {
  const keys = new Map<string, Buffer>();
  text.split('\n').forEach((untrimmed, index) => {
    const line = untrimmed.trim();
    if (line === '') return;
    const wrong = (what: string): HoldfastError =>
      refused(`${file}, line ${index + 1}: ${what}`, 'write username:hexkey, or make it with: psktool -u NAME -p FILE');
    const match = /^([^:]+):((?:[0-9a-f]{2})+)$/i.exec(line);
    if (match === null) throw wrong('not of the form username:hexkey');
    const username = match[1]!.startsWith('#') ? nameOfHex(match[1]!.slice(1)) : match[1]!;
    if (username === null) throw wrong('a username that begins with # is hexadecimal, and this one is not');
    if (Buffer.byteLength(username) > MAX_USERNAME_BYTES) throw wrong(`more than ${MAX_USERNAME_BYTES} bytes of name`);
    const key = Buffer.from(match[2]!, 'hex');
    if (key.length < MIN_KEY_BYTES || key.length > MAX_KEY_BYTES) {
      throw wrong(`a key of ${key.length} bytes; ${MIN_KEY_BYTES} to ${MAX_KEY_BYTES} are good`);
    }
    if (keys.has(username)) throw wrong('that username has a key already');
    keys.set(username, key);
  });
  if (keys.size === 0) throw refused(`${file} holds no key`, 'make one with: psktool -u NAME -p FILE');
  return keys;
}

function nameOfHex(digits: string): string | null {
  return /^(?:[0-9a-f]{2})+$/i.test(digits) ? Buffer.from(digits, 'hex').toString() : null;
}

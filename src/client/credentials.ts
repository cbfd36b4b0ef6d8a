/**
 * What a client shows of itself and whom it believes: certificates, and a token.
 *
 * Guarantees: files are read anew when they have changed, at the next connection; no secret is part of an error; where an
 * address says TLS there is no connection without it.
 *
 * What is not given is taken from the environment, so that every program and every command takes it the same way:
 * HOLDFAST_TLS_CA, HOLDFAST_TLS_CERT, HOLDFAST_TLS_KEY (files), HOLDFAST_TOKEN or HOLDFAST_TOKEN_FILE.
 */
import { readFileSync, statSync } from 'node:fs';
import { type ConnectionOptions, type SecureContext, createSecureContext } from 'node:tls';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { MAX_TOKEN_BYTES } from '../protocol/auth.ts';

/** Files in PEM. */
export interface ClientTls {
  /** Whose signature servers must show. Default: those that Node trusts. */
  caFile?: string | undefined;
  /** What this client shows. Both or none. */
  certFile?: string | undefined;
  keyFile?: string | undefined;
  /** The name that the servers' certificates must be for. Default: the host of the address. */
  serverName?: string | undefined;
}

export interface CredentialOptions {
  tls?: ClientTls | undefined;
  token?: string | undefined;
  tokenFile?: string | undefined;
}

export class Credentials {
  /** Connections are under TLS. */
  readonly secure: boolean;
  private readonly files: ClientTls;
  private readonly givenToken: string | undefined;
  private readonly tokenFile: string | undefined;
  private context: { seen: string; made: SecureContext } | null = null;

  constructor({ tls, token, tokenFile }: CredentialOptions = {}, secure = false) {
    const { env } = process;
    const from = (name: string): string | undefined => env[name] || undefined;
    this.secure = secure;
    const ownPair = tls?.certFile !== undefined || tls?.keyFile !== undefined;
    this.files = {
      caFile: tls?.caFile ?? from('HOLDFAST_TLS_CA'),
      certFile: ownPair ? tls.certFile : from('HOLDFAST_TLS_CERT'),
      keyFile: ownPair ? tls.keyFile : from('HOLDFAST_TLS_KEY'),
      serverName: tls?.serverName,
    };
    const given = token !== undefined || tokenFile !== undefined;
    this.tokenFile = given ? tokenFile : from('HOLDFAST_TOKEN_FILE');
    this.givenToken = given ? token : from('HOLDFAST_TOKEN');
  }

  /** For addresses `host:port` that say nothing of TLS: it is meant where a CA is given. */
  static forBareAddress(options: CredentialOptions = {}): Credentials {
    const caFile = options.tls?.caFile ?? process.env['HOLDFAST_TLS_CA'];
    return new Credentials(options, caFile !== undefined && caFile !== '');
  }

  /** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
  connectionOptions(): ConnectionOptions {
    const { caFile, certFile, keyFile, serverName } = this.files;
    if ((certFile === undefined) !== (keyFile === undefined)) {
      const remedy = 'give both files: HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY';
      throw refused('a certificate and its private key go together, one is missing', remedy);
    }
    const seen = [caFile, certFile, keyFile].map(stateOf).join();
    if (this.context?.seen !== seen) this.context = { seen, made: contextOf(this.files) };
    return { secureContext: this.context.made, ...(serverName !== undefined && { servername: serverName }) };
  }

  /** @throws HoldfastError ACCESS if there is none; INVALID_ARGUMENT, IO_ERROR */
  token(peer: string): string {
    const token = this.tokenFile === undefined ? this.givenToken : textOf(this.tokenFile).trim();
    if (token === undefined || token === '') {
      throw new HoldfastError('ACCESS', {
        operation: 'AUTH',
        peer,
        detail: 'the server wants a token',
        remedy: 'give one: --token-file FILE, or HOLDFAST_TOKEN, or the option `token`',
      });
    }
    if (Buffer.byteLength(token) <= MAX_TOKEN_BYTES) return token;
    throw refused(`a token of more than ${MAX_TOKEN_BYTES} bytes`, 'give what `holdfast token create` has printed');
  }
}

function contextOf({ caFile, certFile, keyFile }: ClientTls): SecureContext {
  const read = (file: string | undefined): string | undefined => (file === undefined ? undefined : textOf(file));
  const [ca, cert, key] = [read(caFile), read(certFile), read(keyFile)];
  try {
    return createSecureContext({ ca, cert, key, minVersion: 'TLSv1.3' });
  } catch (error) {
    // OpenSSL's words; they hold no secrets.
    const detail = (error as { reason?: string }).reason ?? (error as Error).message;
    const given = [caFile, certFile, keyFile].filter((file) => file !== undefined).join(', ');
    throw refused(`${given}: ${detail}`, 'give files in PEM, and the key that belongs to the certificate');
  }
}

function stateOf(file: string | undefined): string {
  const stat = file === undefined ? undefined : statSync(file, { throwIfNoEntry: false, bigint: true });
  return stat === undefined ? 'none' : `${stat.ino} ${stat.size} ${stat.mtimeNs}`;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw refused(`${file}: there is no such file`, 'give the path of a file');
    throw asHoldfastError(error, {
      operation: 'read credentials',
      remedy: 'let the user of this program read the file',
    });
  }
}

function refused(detail: string, remedy: string): HoldfastError {
  return new HoldfastError('INVALID_ARGUMENT', { operation: 'read credentials', detail, remedy });
}

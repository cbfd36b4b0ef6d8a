/**
 * TLS of the ports that speak Holdfast's own protocols, and of the calls between them: TLS 1.3, one certificate, one CA
 * for both directions. Who the other end is follows from the URIs in its certificate: `holdfast:node:NAME` for a node,
 * `holdfast:admin:NAME` for an operator; any other certificate of the CA is a client's.
 *
 * Guarantees: a certificate counts only if the CA signed it and it is valid now; names that Node had to quote count as
 * none; new files are used for new connections without a restart, bad ones are not taken; no session is resumed, so that
 * every connection is judged by the CA of its moment.
 */
import { X509Certificate, constants } from 'node:crypto';
import type { Socket } from 'node:net';
import { type ConnectionOptions, type Server, type TLSSocket, createServer } from 'node:tls';
import { HoldfastError } from '../base/errors.ts';
import { certificateFault } from '../base/tls-failures.ts';
import type { Log } from './server.ts';
import { type Pem, type PemFiles, TlsFiles } from './tls-files.ts';
import { WatchedFiles } from './watched-files.ts';

export interface PortTlsFiles extends PemFiles {
  caFile: string;
}

/** Who holds a certificate that counts. */
export interface Certified {
  /** Of the certificate, for logs. */
  subject: string;
  node: string | null;
  admin: boolean;
}

const FILES = new TlsFiles('set up TLS');
const NAME = '[A-Za-z0-9][A-Za-z0-9._-]*';
const certified: WeakMap<Socket, Certified> = new WeakMap();

/** Of a connection that TLS let in with a certificate; null: without one, or without TLS. */
export function certifiedOf(socket: Socket): Certified | null {
  return certified.get(socket) ?? null;
}

/** The URIs `holdfast:KIND:NAME` of a certificate's subjectAltName, as Node gives it. */
function namesOf(kind: 'node' | 'admin', alternatives: string | undefined): string[] {
  // Where a name holds a comma or a quote Node quotes it: what stands within could look like an entry.
  if (alternatives === undefined || alternatives.includes('"')) return [];
  const uri = new RegExp(`^URI:holdfast:${kind}:(${NAME})$`);
  return alternatives.split(', ').flatMap((entry) => uri.exec(entry)?.[1] ?? []);
}

export class PortTls {
  private pem: Pem;
  private readonly servers: Set<Server> = new Set();
  private readonly watched: WatchedFiles;

  private constructor(files: PortTlsFiles, pem: Pem, log: Log) {
    this.pem = pem;
    const all = [files.certFile, files.keyFile, files.caFile];
    this.watched = new WatchedFiles('TLS', all, () => this.renew(files), log);
  }

  /** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
  static async load(files: PortTlsFiles, log: Log): Promise<PortTls> {
    return new PortTls(files, await FILES.load(files), log);
  }

  private async renew(files: PortTlsFiles): Promise<void> {
    this.pem = await FILES.load(files);
    for (const server of this.servers) server.setSecureContext(this.context());
  }

  /** When the certificate in force expires, or one of those between it and the CA: milliseconds since 1970. */
  get certificateEndMs(): number {
    const all = this.pem.cert.split(/(?<=-----END CERTIFICATE-----)/).filter((text) => text.includes('-----BEGIN'));
    return Math.min(...all.map((text) => Date.parse(new X509Certificate(text).validTo)));
  }

  reload(): Promise<void> {
    return this.watched.reload();
  }

  close(): void {
    this.watched.close();
    this.servers.clear();
  }

  private context(): Pick<ConnectionOptions, 'cert' | 'key' | 'minVersion' | 'secureOptions'> & { ca: string[] } {
    const { cert, key, ca } = this.pem;
    return { cert, key, ca: ca!, minVersion: 'TLSv1.3', secureOptions: constants.SSL_OP_NO_TICKET };
  }

  /** One that never listens: connections are handed to it. It does not judge certificates, `judge` does. */
  server(secured: (socket: TLSSocket) => void, failed: (error: Error, socket: TLSSocket) => void): Server {
    const server = createServer({ ...this.context(), requestCert: true, rejectUnauthorized: false });
    server.on('secureConnection', secured);
    server.on('tlsClientError', failed);
    this.servers.add(server);
    return server;
  }

  /** For calling that node: whoever answers has to have its certificate, whatever the address is. */
  towards(node: string): ConnectionOptions {
    return {
      ...this.context(),
      rejectUnauthorized: true,
      checkServerIdentity: (_host, { subjectaltname }) => {
        const names = namesOf('node', subjectaltname);
        if (names.includes(node)) return undefined;
        const error: NodeJS.ErrnoException = new Error(`it names ${said(names)}, and node ${node} was called`);
        error.code = 'ERR_TLS_CERT_ALTNAME_INVALID';
        return error;
      },
    };
  }

  /**
   * Whether a connection whose handshake is over may go on, by its certificate.
   * @returns null if so; `certifiedOf` knows who it is then
   */
  judge(socket: TLSSocket, wants: 'any' | 'certificate' | 'node' | 'node or admin'): HoldfastError | null {
    const { subject, subjectaltname } = socket.getPeerCertificate() as { subject?: object; subjectaltname?: string };
    const refuse = (detail: string, remedy: string): HoldfastError =>
      new HoldfastError('ACCESS', { operation: 'TLS', detail, remedy });
    if (subject === undefined) {
      if (wants === 'any') return null;
      return refuse('this port wants a certificate', 'give one of its CA with the key (HOLDFAST_TLS_CERT and _KEY)');
    }
    const problem = socket.authorizationError as unknown as string | null;
    if (!socket.authorized) {
      return refuse(`the certificate ${certificateFault(String(problem))}`, 'give one that the CA of this port signed');
    }
    const nodes = namesOf('node', subjectaltname);
    const admin = namesOf('admin', subjectaltname).length > 0;
    const fits = wants === 'node' ? nodes.length === 1 : nodes.length === 1 || admin || wants !== 'node or admin';
    if (!fits) {
      const uris = wants === 'node' ? 'URI:holdfast:node:NAME' : 'URI:holdfast:node:NAME or URI:holdfast:admin:NAME';
      return refuse(`the certificate names ${said(nodes)}`, `one with ${uris} in its subjectAltName is wanted here`);
    }
    certified.set(socket, { subject: nameOf(subject), node: nodes.length === 1 ? nodes[0]! : null, admin });
    return null;
  }

  /** @throws HoldfastError INVALID_ARGUMENT if the own certificate is not one of that node */
  checkOwn(node: string): void {
    const names = namesOf('node', new X509Certificate(this.pem.cert).subjectAltName);
    if (names.length === 1 && names[0] === node) return;
    const wanted = `URI:holdfast:node:${node}`;
    throw FILES.refused(`the certificate names ${said(names)}, and this is node ${node}`, `make one with ${wanted}`);
  }
}

function said(nodes: readonly string[]): string {
  return nodes.length === 0 ? 'no node' : `node ${nodes.join(' and ')}`;
}

function nameOf(subject: object): string {
  const { CN } = subject as { CN?: unknown };
  return typeof CN === 'string' ? CN.slice(0, 255) : JSON.stringify(subject).slice(0, 255);
}

/** Certificates and keys for tests, made by openssl(1) in the folders that libnbd and qemu expect. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

function openssl(args: string[]): void {
  const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args.join(' ')}: ${stderr}`);
}

/** Paths of a certificate and its key. */
export interface Pair {
  certFile: string;
  keyFile: string;
}

/** A CA of its own, in a folder of its own. */
export class TestCa {
  readonly folder: string;
  readonly certFile: string;

  constructor(folder: string) {
    mkdirSync(folder);
    this.folder = folder;
    this.certFile = join(folder, 'ca-cert.pem');
    const ca = ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'];
    openssl([...request(join(folder, 'ca-key.pem'), this.certFile, 'holdfast test CA'), '-x509', '-days', '2', ...ca]);
  }

  /**
   * @param more of its subjectAltName, such as the URI of a node
   * @returns the paths of a certificate for localhost and its key
   */
  issue(name: string, into: string = this.folder, days = 2, more: string[] = []): Pair {
    const [certFile, keyFile] = [join(into, `${name}-cert.pem`), join(into, `${name}-key.pem`)];
    const [requestFile, extensions] = [join(this.folder, `${name}.csr`), join(this.folder, `${name}.ext`)];
    openssl(request(keyFile, requestFile, name));
    writeFileSync(extensions, `subjectAltName=${['DNS:localhost', 'IP:127.0.0.1', ...more].join(',')}\n`);
    const sign = ['-CA', this.certFile, '-CAkey', join(this.folder, 'ca-key.pem'), '-CAcreateserial'];
    openssl([
      'x509',
      '-req',
      '-in',
      requestFile,
      ...sign,
      '-days',
      String(days),
      '-extfile',
      extensions,
      '-out',
      certFile,
    ]);
    return { certFile, keyFile };
  }

  /** What a process of Holdfast is started with to have these, and to trust this CA. */
  flags({ certFile, keyFile }: Pair): string[] {
    return ['--tls-cert', certFile, '--tls-key', keyFile, '--tls-ca', this.certFile];
  }

  /** The same for clients and the command line. */
  env({ certFile, keyFile }: Pair): NodeJS.ProcessEnv {
    return { HOLDFAST_TLS_CA: this.certFile, HOLDFAST_TLS_CERT: certFile, HOLDFAST_TLS_KEY: keyFile };
  }

  /**
   * A folder as a client wants it: this CA to trust, and a certificate.
   * @param signer who signs the client's certificate; null: it has none
   */
  clientFolder(path: string, signer: TestCa | null = this): string {
    mkdirSync(path);
    spawnSync('cp', [this.certFile, path]);
    signer?.issue('client', path);
    return path;
  }
}

function request(keyFile: string, outFile: string, name: string): string[] {
  return ['req', '-newkey', 'rsa:2048', '-nodes', '-keyout', keyFile, '-out', outFile, '-subj', `/CN=${name}`];
}

/** A file of pre-shared keys as psktool makes it. qemu wants the name `keys.psk`, in a folder that it is told. */
export function pskFile(folder: string, ...usernames: string[]): { file: string; keys: Map<string, Buffer> } {
  mkdirSync(folder, { recursive: true });
  const keys = new Map(usernames.map((username) => [username, randomBytes(32)] as const));
  const file = join(folder, 'keys.psk');
  writeFileSync(file, [...keys].map(([username, key]) => `${username}:${key.toString('hex')}\n`).join(''));
  return { file, keys };
}

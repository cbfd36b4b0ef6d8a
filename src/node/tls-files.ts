/**
 * Certificates and keys from files in PEM, for whichever port wants them.
 *
 * Guarantees: what cannot work is refused when it is read, with the file and the line; no key is ever printed.
 */
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';

export interface PemFiles {
  certFile: string;
  keyFile: string;
  caFile?: string | undefined;
}

export interface Pem {
  /** With those between it and its CA behind it. */
  cert: string;
  key: string;
  ca: string[] | null;
}

/** Reads files for one purpose, which its errors name. */
export class TlsFiles {
  private readonly operation: string;

  constructor(operation: string) {
    this.operation = operation;
  }

  refused(detail: string, remedy: string, cause?: unknown): HoldfastError {
    return new HoldfastError('INVALID_ARGUMENT', { operation: this.operation, detail, remedy, cause });
  }

  /** @throws HoldfastError INVALID_ARGUMENT, ACCESS, IO_ERROR */
  async load({ certFile, keyFile, caFile }: PemFiles): Promise<Pem> {
    const cert = await this.text(certFile);
    this.certificatesIn(certFile, cert);
    const key = await this.text(keyFile);
    try {
      createSecureContext({ key });
    } catch (error) {
      throw this.refused(
        `${keyFile} holds no private key that can be read`,
        'give a private key in PEM, not encrypted by a passphrase',
        error,
      );
    }
    try {
      createSecureContext({ cert, key });
    } catch (error) {
      throw this.refused(
        `${certFile} and ${keyFile} do not go together: ${brief(error)}`,
        'give the key for which the certificate was made; the certificate of the server comes first in its file',
        error,
      );
    }
    const ca = caFile === undefined ? null : this.certificatesIn(caFile, await this.text(caFile));
    return { cert, key, ca };
  }

  /** Each certificate of a file by itself: of a bundle in one piece Node takes what it understands and says nothing. */
  private certificatesIn(file: string, text: string): string[] {
    const blocks = [...text.matchAll(/-----BEGIN [A-Z0-9 ]+-----[^-]*(?:-----END [A-Z0-9 ]+-----)?/g)];
    if (blocks.length === 0) throw this.refused(`${file} holds no certificate`, 'give a file in PEM');
    return blocks.map((block) => {
      try {
        return new X509Certificate(block[0]).toString();
      } catch (error) {
        const line = text.slice(0, block.index).split('\n').length;
        const detail = `${file}, line ${line}: no certificate: ${brief(error)}`;
        throw this.refused(detail, 'give certificates in PEM only', error);
      }
    });
  }

  async text(file: string): Promise<string> {
    try {
      return await readFile(file, 'utf8');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'EISDIR') {
        const what = code === 'ENOENT' ? 'there is no such file' : 'it is a folder';
        throw this.refused(`${file}: ${what}`, 'give the path of a file', error);
      }
      throw asHoldfastError(error, {
        operation: this.operation,
        remedy: 'let the user that runs this program read the file',
      });
    }
  }
}

/** OpenSSL's words; they hold no secrets. */
export function brief(error: unknown): string {
  return (error as { reason?: string }).reason ?? (error as Error).message;
}

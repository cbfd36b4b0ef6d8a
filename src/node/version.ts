/** The package's version, read from package.json: the same from the sources and from dist. */
import { readFileSync } from 'node:fs';

function read(): string {
  for (const up of ['../../package.json', '../../../package.json']) {
    try {
      return (JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { version: string }).version;
    } catch {
      // The sources lie two folders below it, dist three.
    }
  }
  return '0.0.0';
}

export const PACKAGE_VERSION = read();

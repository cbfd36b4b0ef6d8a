/**
 * Reads a config file: YAML, a section for each command, a key for each of its flags.
 *
 * Guarantees: a file with any fault is refused as a whole, and all of its faults are told, each with line, column and
 * key; no fault repeats a value that may be a secret; the file is bounded, and nothing in it is expanded (no aliases, no
 * tags).
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Document, LineCounter, type Node, isMap, isScalar, parseDocument, visit } from 'yaml';
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import { type Keys, SECTIONS, nearest } from './config-schema.ts';

const MOST_BYTES = 64 * 1024;
const MOST_FINDINGS = 50;

export interface Finding {
  line: number;
  column: number;
  /** With its section; empty: it is about the file. */
  key: string;
  message: string;
  didYouMean: string | null;
}

export interface Config {
  findings: Finding[];
  /** By section, by key, as they are written; paths resolved. */
  values: Map<string, Record<string, unknown>>;
}

/** @throws HoldfastError ACCESS, IO_ERROR, TOO_LARGE: it cannot be read at all */
export function readConfig(file: string, sections: readonly Keys[]): Config {
  return parseConfig(textOf(file), resolve(dirname(file)), sections);
}

function textOf(file: string): string {
  const bytes = Buffer.alloc(MOST_BYTES + 1);
  let length = 0;
  try {
    const descriptor = openSync(file, 'r');
    try {
      for (let got = 1; got > 0 && length < bytes.length; length += got) {
        got = readSync(descriptor, bytes, length, bytes.length - length, null);
      }
    } finally {
      closeSync(descriptor);
    }
  } catch (error) {
    throw asHoldfastError(error, { operation: 'read the config file', detail: file });
  }
  if (length > MOST_BYTES) {
    const detail = `${file} is longer than ${MOST_BYTES} bytes`;
    throw new HoldfastError('TOO_LARGE', { operation: 'read the config file', detail });
  }
  return bytes.toString('utf8', 0, length);
}

/** @param folder that relative paths start from */
export function parseConfig(text: string, folder: string, sections: readonly Keys[]): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, uniqueKeys: true, stringKeys: true });
  const findings: Finding[] = [];
  const find = (offset: number, key: string, message: string, didYouMean: string | null = null): void => {
    const { line, col } = lines.linePos(offset);
    if (findings.length < MOST_FINDINGS) findings.push({ line, column: col, key, message, didYouMean });
  };
  const values: Config['values'] = new Map();
  for (const { code, message, pos } of [...document.errors, ...document.warnings]) {
    // yaml's own messages quote no more than keys and punctuation, but for these.
    const repeated = code === 'DUPLICATE_KEY' ? keyAt(document, pos[0]) : '';
    find(pos[0], repeated, code === 'DUPLICATE_KEY' ? 'this key is there twice' : faultOf(code, message));
  }
  visit(document, {
    Alias: (_, { range }) => find(range?.[0] ?? 0, '', 'an alias (*name): write the value itself'),
    Node: (_, { anchor, tag, range }) => {
      if (anchor !== undefined) find(range?.[0] ?? 0, '', 'an anchor (&name): nothing here is written once for many');
      else if (tag !== undefined && tag.startsWith('!'))
        find(range?.[0] ?? 0, '', 'a tag (!name): write a plain value');
    },
  });
  if (findings.length > 0) return { findings, values };
  const root = document.contents;
  if (root === null) return { findings, values };
  if (!isMap(root)) {
    find(root.range?.[0] ?? 0, '', `write sections: ${SECTIONS.join(': or ')}:, with keys below`);
    return { findings, values };
  }
  for (const { key, value } of root.items) {
    const name = nameOf(key);
    const at = startOf(key);
    const keys = sections.find(({ section }) => section === name);
    if (keys === undefined)
      find(at, name, `no such section; there are ${SECTIONS.join(', ')}`, nearest(name, SECTIONS));
    else if (isMap(value)) values.set(name, valuesOf(document, keys, folder, find));
    else if (value === null || (isScalar(value) && value.value === null)) values.set(name, {});
    else find(startOf(value), name, 'it is a section: write its keys below it, indented');
  }
  findings.sort((a, b) => a.line - b.line || a.column - b.column);
  return { findings, values };
}

function valuesOf(
  document: Document.Parsed,
  { section, keys, schema }: Keys,
  folder: string,
  find: (offset: number, key: string, message: string, didYouMean?: string | null) => void,
): Record<string, unknown> {
  const node = document.get(section);
  const given = (document.toJS({ maxAliasCount: 0 }) as Record<string, Record<string, unknown>>)[section]!;
  const { error } = schema.safeParse(given);
  const known = keys.map(({ key }) => key);
  const place = (name: string, ofKey: boolean): number => {
    const pair = isMap(node) ? node.items.find(({ key }) => nameOf(key) === name) : undefined;
    return startOf(ofKey || pair?.value === null ? pair?.key : pair?.value);
  };
  for (const issue of error?.issues ?? []) {
    if (issue.code === 'unrecognized_keys') {
      for (const name of issue.keys) find(place(name, true), `${section}.${name}`, ...unknown(name, known));
    } else {
      const name = String(issue.path[0] ?? '');
      find(place(name, false), `${section}.${name}`, issue.message);
    }
  }
  const paths = keys.filter(({ type }) => type.isPath === true).map(({ key }) => key);
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => [
      name,
      paths.includes(name) && typeof value === 'string' ? resolve(folder, value) : value,
    ]),
  );
}

/** Somebody who writes a password here is told where it belongs. */
function unknown(name: string, known: readonly string[]): [string, string | null] {
  const meant = nearest(name, known);
  if (meant?.endsWith('File') && !name.endsWith('File')) {
    return [
      'no such key: a secret or a certificate is never in this file, its key names the file that holds it',
      meant,
    ];
  }
  return ['no such key', meant];
}

function faultOf(code: string, message: string): string {
  if (code === 'MULTIPLE_DOCS') return 'a second document (---): one file has one';
  return `it is not YAML: ${message.split('\n')[0]!.slice(0, 200)}`;
}

const nameOf = (key: unknown): string => (isScalar(key) ? String(key.value) : '');
const startOf = (node: unknown): number => (node as Node | null | undefined)?.range?.[0] ?? 0;

function keyAt(document: Document.Parsed, offset: number): string {
  let found = '';
  visit(document, {
    Pair: (_, { key }, path) => {
      if (startOf(key) !== offset) return undefined;
      const above = path.flatMap((one) => ('key' in one ? [nameOf(one.key)] : []));
      found = [...above, nameOf(key)].join('.');
      return visit.BREAK;
    },
  });
  return found;
}

/** `file:3:5: node.listn: no such key; did you mean listen?` */
export function lineOf(file: string, { line, column, key, message, didYouMean }: Finding): string {
  const meant = didYouMean === null ? '' : `; did you mean ${didYouMean}?`;
  return `${file}:${line}:${column}: ${key === '' ? '' : `${key}: `}${message}${meant}`;
}

/**
 * The data of the options that have some, parsed.
 *
 * Guarantees: a length that points past the end of the data, bytes left over, text that is not UTF-8 or holds a NUL all
 * give null, never an exception; what is built is bounded by the data's own length.
 */
import { decodeText, get16, get32 } from './big-endian.ts';

/** Reads a run of bytes front to back; once something is missing, `failed` stays true and all that follows is empty. */
class Reader {
  failed = false;
  private readonly bytes: Uint8Array;
  private at = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Bytes that were not read yet. */
  get restBytes(): number {
    return this.failed ? 0 : this.bytes.length - this.at;
  }

  u16(): number {
    return this.has(2) ? get16(this.bytes, (this.at += 2) - 2) : 0;
  }

  u32(): number {
    return this.has(4) ? get32(this.bytes, (this.at += 4) - 4) : 0;
  }

  /** A length of 32 bits and so many bytes of text. */
  text(): string {
    const lengthBytes = this.u32();
    if (!this.has(lengthBytes)) return '';
    const text = decodeText(this.bytes.subarray(this.at, this.at + lengthBytes));
    this.at += lengthBytes;
    if (text === null) this.failed = true;
    return text ?? '';
  }

  private has(count: number): boolean {
    if (this.bytes.length - this.at < count) this.failed = true;
    return !this.failed;
  }
}

export interface InfoRequest {
  /** Name of the export. */
  name: string;
  /** Items of INFO, also ones that nobody knows. */
  wanted: ReadonlySet<number>;
}

/** Data of INFO and GO; null: malformed. */
export function parseInfoRequest(data: Uint8Array): InfoRequest | null {
  const reader = new Reader(data);
  const name = reader.text();
  const count = reader.u16();
  if (reader.failed || reader.restBytes !== 2 * count) return null;
  const wanted = new Set<number>();
  for (let i = 0; i < count; i++) wanted.add(reader.u16());
  return { name, wanted };
}

export interface ContextRequest {
  /** Name of the export. */
  name: string;
  queries: readonly string[];
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT; null: malformed. */
export function parseContextRequest(data: Uint8Array): ContextRequest | null {
  const reader = new Reader(data);
  const name = reader.text();
  const count = reader.u32();
  // Each query has a length of 4 bytes at least, so a count that cannot be true is refused before the loop.
  if (reader.failed || reader.restBytes < 4 * count) return null;
  const queries: string[] = [];
  for (let i = 0; i < count; i++) queries.push(reader.text());
  return reader.failed || reader.restBytes !== 0 ? null : { name, queries };
}

/**
 * Requests out of a stream of bytes: arrays of bulk strings, as clients send them, and lines, as people type them.
 *
 * Guarantees: the same requests for every way in which the stream is cut; work is linear in the bytes, whatever the
 * cuts; what is kept of an unfinished request is bounded; nothing throws. After a malformed byte there is `problem`, in
 * Redis's words, and no more requests.
 */
import { parseLength } from './integers.ts';
import { ARGUMENT_BYTES, type RespLimits } from './limits.ts';
import { splitWords } from './inline.ts';

/** Of a line: a typed command, or the head of an array or a string. */
const MAX_LINE_BYTES = 64 * 1024;
const MAX_INT32 = 0x7fff_ffff;
/** What somebody who has not told the password yet may send. */
const MAX_STRANGER_ARGUMENTS = 10;
const MAX_STRANGER_BULK_BYTES = 16 * 1024;
const CR = 0x0d;
const LF = 0x0a;
const STAR = 0x2a;
const DOLLAR = 0x24;
const EMPTY = Buffer.alloc(0);

export class RequestParser {
  private readonly limits: RespLimits;
  /** Chunks behind the one that is being read. */
  private chunks: Buffer[] = [];
  private chunk: Buffer = EMPTY;
  private at = 0;
  /** The beginning of a line that has no end yet. */
  private line: Buffer = EMPTY;
  private lineBytes = 0;
  /** The byte after a line's CR is still to come. Whatever it is: Redis does not look either. */
  private skip = false;
  private args: Buffer[] = [];
  /** Arguments of the array that are still to come. 0: between requests. */
  private missing = 0;
  private requestBytes = 0;
  /** A string whose bytes lie in several chunks. */
  private bulk: Buffer | null = null;
  private bulkAt = 0;
  /** Nobody knows who sends: little is accepted. */
  stranger = false;
  /** What is wrong with the stream, null as long as nothing is. */
  problem: string | null = null;
  /** Bytes that were pushed and not read. */
  unreadBytes = 0;

  constructor(limits: RespLimits) {
    this.limits = limits;
  }

  /** A request has begun, and not all of it is here. Asked when `next` has returned null. */
  get midRequest(): boolean {
    return this.problem === null && (this.missing > 0 || this.lineBytes > 0);
  }

  /** Bytes that are kept: of chunks, and of an unfinished request. */
  get keptBytes(): number {
    return this.unreadBytes + this.line.length + this.requestBytes;
  }

  /** The chunk is the parser's from now on: arguments are views of it. */
  push(chunk: Buffer): void {
    if (this.problem !== null || chunk.length === 0) return;
    this.unreadBytes += chunk.length;
    if (this.at === this.chunk.length) {
      this.chunk = chunk;
      this.at = 0;
    } else this.chunks.push(chunk);
  }

  /** Forgets what was pushed. */
  stop(problem = 'stopped'): null {
    this.problem ??= problem;
    this.chunks = [];
    this.chunk = EMPTY;
    this.line = EMPTY;
    this.args = [];
    this.bulk = null;
    this.at = this.lineBytes = this.unreadBytes = this.requestBytes = this.missing = 0;
    return null;
  }

  /** @returns the next request: its name and arguments, at least one; null: it is not here yet, or there is a problem */
  next(): Buffer[] | null {
    for (;;) {
      if (this.problem !== null || !this.skipEnd()) return null;
      if (this.bulk !== null) {
        if (!this.fillBulk()) return null;
      } else if (this.missing === 0) {
        const line = this.takeLine();
        if (line === null) return null;
        if (line[0] === STAR) this.beginArray(line);
        else {
          const words = splitWords(line);
          if (words === null) return this.stop('unbalanced quotes in request');
          if (words.length > 0) return words;
        }
      } else {
        const line = this.takeLine();
        if (line === null) return null;
        this.beginBulk(line);
      }
      if (this.missing === 0 && this.args.length > 0) {
        const { args } = this;
        this.args = [];
        this.requestBytes = 0;
        return args;
      }
    }
  }

  private advance(bytes: number): void {
    this.at += bytes;
    this.unreadBytes -= bytes;
  }

  /** @returns false: there is no byte to read */
  private more(): boolean {
    if (this.at < this.chunk.length) return true;
    const next = this.chunks.shift();
    this.chunk = next ?? EMPTY;
    this.at = 0;
    return next !== undefined;
  }

  private skipEnd(): boolean {
    if (!this.skip) return true;
    if (!this.more()) return false;
    this.advance(1);
    this.skip = false;
    return true;
  }

  /** @returns a line without its end, valid until the next call; null: it is not here yet, or is too long */
  private takeLine(): Buffer | null {
    while (this.more()) {
      const { chunk, at } = this;
      const first = this.lineBytes > 0 ? this.line[0] : chunk[at];
      const typed = this.missing === 0 && first !== STAR;
      const end = chunk.indexOf(typed ? LF : CR, at);
      const until = end < 0 ? chunk.length : end;
      if (this.lineBytes + until - at > MAX_LINE_BYTES) {
        return this.stop(
          typed
            ? 'too big inline request'
            : this.missing === 0
              ? 'too big mbulk count string'
              : 'too big bulk count string',
        );
      }
      let line: Buffer | null = null;
      if (end >= 0 && this.lineBytes === 0) line = chunk.subarray(at, end);
      else {
        this.keepLine(chunk, at, until);
        if (end >= 0) line = this.line.subarray(0, this.lineBytes);
      }
      this.advance(until - at);
      if (line === null) continue;
      this.advance(1);
      this.lineBytes = 0;
      if (this.line.length > MAX_LINE_BYTES / 16) this.line = EMPTY;
      if (!typed) this.skip = true;
      else if (line[line.length - 1] === CR) return line.subarray(0, line.length - 1);
      return line;
    }
    return null;
  }

  private keepLine(chunk: Buffer, from: number, until: number): void {
    const needed = this.lineBytes + until - from;
    if (needed > this.line.length) {
      const grown = Buffer.allocUnsafeSlow(Math.max(64, needed, this.line.length * 2));
      this.line.copy(grown, 0, 0, this.lineBytes);
      this.line = grown;
    }
    chunk.copy(this.line, this.lineBytes, from, until);
    this.lineBytes = needed;
  }

  private beginArray(line: Buffer): void {
    const count = parseLength(line, 1);
    if (count === null || count > MAX_INT32 || count > this.limits.maxArguments) {
      return void this.stop('invalid multibulk length');
    }
    if (count > MAX_STRANGER_ARGUMENTS && this.stranger) return void this.stop('unauthenticated multibulk length');
    this.missing = Math.max(0, count);
  }

  private beginBulk(line: Buffer): void {
    if (line[0] !== DOLLAR) {
      const got = line.length === 0 ? '\r' : String.fromCharCode(line[0]!);
      return void this.stop(`expected '$', got '${got}'`);
    }
    const length = parseLength(line, 1);
    if (length === null || length < 0 || length > this.limits.maxBulkBytes) {
      return void this.stop('invalid bulk length');
    }
    if (length > MAX_STRANGER_BULK_BYTES && this.stranger) return void this.stop('unauthenticated bulk length');
    this.requestBytes += length + ARGUMENT_BYTES;
    if (this.requestBytes > this.limits.maxRequestBytes) return void this.stop('too big request');
    // The usual case: all of it is in this chunk, behind the line's last byte.
    const from = this.at + 1;
    if (from + length + 2 <= this.chunk.length) {
      this.skip = false;
      this.advance(length + 3);
      this.add(this.chunk.subarray(from, from + length));
    } else {
      this.bulk = Buffer.allocUnsafeSlow(length);
      this.bulkAt = 0;
    }
  }

  private fillBulk(): boolean {
    const bulk = this.bulk!;
    while (this.bulkAt < bulk.length + 2) {
      if (!this.more()) return false;
      const { chunk, at } = this;
      // Behind its bytes come two that end it.
      const left = this.bulkAt < bulk.length ? bulk.length - this.bulkAt : bulk.length + 2 - this.bulkAt;
      const now = Math.min(left, chunk.length - at);
      if (this.bulkAt < bulk.length) chunk.copy(bulk, this.bulkAt, at, at + now);
      this.bulkAt += now;
      this.advance(now);
    }
    this.bulk = null;
    this.add(bulk);
    return true;
  }

  private add(bulk: Buffer): void {
    this.args.push(bulk);
    this.missing--;
  }
}

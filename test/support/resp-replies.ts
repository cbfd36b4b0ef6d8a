/** Reads replies of RESP2 and RESP3 for tests, strictly: whatever is not exactly a reply fails. */
import * as assert from 'uvu/assert';

/** Bytes as latin1; aggregates as arrays that begin with their sign; null is null. */
export type Tree = null | number | string | { error: string } | { status: string } | [string, ...Tree[]];

export interface Read {
  tree: Tree;
  end: number;
}

/** @returns null: not all of it is here */
export function readReply(bytes: Buffer, from = 0): Read | null {
  const eol = bytes.indexOf('\r\n', from);
  if (eol < 0) return null;
  const sign = String.fromCharCode(bytes[from]!);
  const line = bytes.toString('latin1', from + 1, eol);
  const end = eol + 2;
  const count = (): number => {
    assert.match(line, /^(?:-1|0|[1-9]\d*)$/);
    return Number(line);
  };
  switch (sign) {
    case '+':
      return { tree: { status: line }, end };
    case '-':
      return { tree: { error: line }, end };
    case '_':
      assert.is(line, '');
      return { tree: null, end };
    case ':':
    case ',':
    case '#':
      return { tree: `${sign}${line}`, end };
    case '$':
    case '=': {
      const length = count();
      if (length < 0) return { tree: null, end };
      if (bytes.length < end + length + 2) return null;
      assert.is(bytes.toString('latin1', end + length, end + length + 2), '\r\n');
      return { tree: bytes.toString('latin1', end, end + length), end: end + length + 2 };
    }
    case '*':
    case '~':
    case '%': {
      const length = count();
      if (length < 0) return { tree: null, end };
      const tree: [string, ...Tree[]] = [sign];
      let at = end;
      for (let i = 0; i < length * (sign === '%' ? 2 : 1); i++) {
        const part = readReply(bytes, at);
        if (part === null) return null;
        tree.push(part.tree);
        at = part.end;
      }
      return { tree, end: at };
    }
    default:
      throw new Error(`no reply begins with ${JSON.stringify(sign)}`);
  }
}

/** @returns the replies that these bytes are, with nothing left */
export function readAll(bytes: Buffer): Tree[] {
  const trees: Tree[] = [];
  for (let at = 0; at < bytes.length;) {
    const read = readReply(bytes, at);
    assert.ok(read !== null, `half a reply: ${bytes.toString('latin1', at)}`);
    trees.push(read!.tree);
    at = read!.end;
  }
  return trees;
}

/** A command as clients send it; a string's code units are its bytes. */
export function encodeCommand(args: ReadonlyArray<string | Uint8Array>): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)];
  for (const arg of args) {
    const bytes = typeof arg === 'string' ? Buffer.from(arg, 'latin1') : Buffer.from(arg);
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'));
  }
  return Buffer.concat(parts);
}

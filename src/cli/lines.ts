/**
 * The lines of a stream of bytes.
 *
 * Guarantees: what is held is bounded by the longest line that is allowed and one piece of the stream; a line that is
 * longer comes as null, and the next one whole; the last line may come without its end.
 */

const NEWLINE = 0x0a;
const RETURN = 0x0d;
/** Pieces of a line that has not ended: a stream that gives single bytes does not cost an object for each. */
const MAX_PIECES = 256;

/** @param maxBytes of a line, without its end. A return before the newline is part of the end. */
export async function* linesOf(source: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Buffer | null> {
  let pieces: Buffer[] = [];
  let bytes = 0;
  const keep = (piece: Buffer): void => {
    if (piece.length === 0) return;
    bytes += piece.length;
    // One more is the return that does not count.
    if (bytes > maxBytes + 1) pieces = [];
    else if (pieces.push(piece) > MAX_PIECES) pieces = [Buffer.concat(pieces)];
  };
  const take = (): Buffer | null => {
    const line = bytes > maxBytes + 1 ? null : Buffer.concat(pieces);
    [pieces, bytes] = [[], 0];
    const ended = line?.at(-1) === RETURN ? line.subarray(0, -1) : line;
    return ended !== null && ended.length > maxBytes ? null : ended;
  };
  for await (const chunk of source) {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, from)) {
      keep(chunk.subarray(from, at));
      yield take();
      from = at + 1;
    }
    keep(chunk.subarray(from));
  }
  if (bytes > 0) yield take();
}

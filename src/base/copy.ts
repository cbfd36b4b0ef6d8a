/**
 * Copies of bytes into and out of shared memory.
 *
 * `TypedArray.set` copies byte by byte where one side is shared and the two are not aligned to each other: 3 GB/s. What
 * comes from a socket begins anywhere. `Buffer.fill` with bytes is a memcpy, 20 GB/s, whose call costs a little more.
 */
const fill = Buffer.prototype.fill as unknown as (value: Uint8Array, from: number, to: number) => void;
const WORTH_BYTES = 1024;

/** Copies all of `source` to `target` from byte `at` on. The two must not overlap. */
export function copyBytes(target: Uint8Array, at: number, source: Uint8Array): void {
  const aligned = ((target.byteOffset + at - source.byteOffset) & 7) === 0;
  if (aligned || source.length < WORTH_BYTES) target.set(source, at);
  else if (at + source.length > target.length) throw new RangeError('the target is too short');
  else fill.call(target, source, at, at + source.length);
}

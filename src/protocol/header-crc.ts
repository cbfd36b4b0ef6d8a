/**
 * CRC-32 (as zlib) of a frame header, in JavaScript: for 60 bytes a call into zlib and the view that it needs cost more
 * than the sum itself. Pure.
 */

const TABLES: ReadonlyArray<Uint32Array> = (() => {
  const tables = [0, 1, 2, 3].map(() => new Uint32Array(256));
  for (let value = 0; value < 256; value++) {
    let crc = value;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    tables[0]![value] = crc;
  }
  for (let t = 1; t < 4; t++) {
    for (let value = 0; value < 256; value++) {
      const crc = tables[t - 1]![value]!;
      tables[t]![value] = (crc >>> 8) ^ tables[0]![crc & 255]!;
    }
  }
  return tables;
})();
const [T0, T1, T2, T3] = TABLES as [Uint32Array, Uint32Array, Uint32Array, Uint32Array];

/** CRC-32 of `count` bytes of `bytes` from `at` on, a multiple of 4. Allocates nothing. */
export function headerCrc(bytes: Uint8Array, at: number, count = 60): number {
  let crc = -1;
  for (let i = at; i < at + count; i += 4) {
    crc ^= bytes[i]! | (bytes[i + 1]! << 8) | (bytes[i + 2]! << 16) | (bytes[i + 3]! << 24);
    crc = T3[crc & 255]! ^ T2[(crc >>> 8) & 255]! ^ T1[(crc >>> 16) & 255]! ^ T0[crc >>> 24]!;
  }
  return ~crc >>> 0;
}

/** The frame codec: writing a header, and taking frames apart when 1 to 64 of them arrive in one piece. */
import { crc32 } from '../../src/base/checksum.ts';
import { BLOCK_BYTES } from '../../src/base/units.ts';
import { encodeHeader, FrameDecoder, HEADER_BYTES, type FrameSink } from '../../src/protocol/frame.ts';
import { MESSAGES } from '../../src/protocol/messages.ts';
import { encodeFrame } from '../../src/protocol/replies.ts';
import { Random } from '../load/workload.ts';
import { microSuite, type Case } from './suite.ts';

const block = new Uint8Array(BLOCK_BYTES);
new Random(1).fill(block);
const payloadCrc = crc32(block);
const into = new Uint8Array(HEADER_BYTES);
const fields = {
  type: MESSAGES.WRITE.number,
  payloadBytes: BLOCK_BYTES,
  requestId: 0,
  epoch: 3,
  offset: 0,
  count: BLOCK_BYTES,
  payloadCrc,
};

let frames = 0;
const destination = new Uint8Array(BLOCK_BYTES);
/** As a server decodes: the payload goes to a place that is there already. */
const sink = (verify: boolean): FrameSink => ({
  onHeader: (header) => {
    header.verify = verify;
    return destination;
  },
  onFrame: () => void frames++,
  onMalformed: (error) => {
    throw error;
  },
});

/** `count` requests one behind the other. */
function burst(count: number, write: boolean): Uint8Array {
  const all = Array.from({ length: count }, (_, i) => {
    const type = write ? MESSAGES.WRITE.number : MESSAGES.READ.number;
    const request = { type, requestId: i + 1, epoch: 3, offset: i * BLOCK_BYTES, count: BLOCK_BYTES };
    return encodeFrame(request, write ? block : null);
  });
  return new Uint8Array(Buffer.concat(all));
}

function decoding(count: number, write: boolean, verify: boolean): Case {
  const decoder = new FrameDecoder(sink(verify), 'server');
  const bytes = burst(count, write);
  const what = write ? `4 KiB WRITE${verify ? '' : ', CRC left to the sink'}` : 'READ';
  return { name: `decode ${count} x ${what}`, run: () => decoder.push(bytes), things: count, bytes: bytes.length };
}

await microSuite('frame', [
  {
    name: 'encodeHeader',
    run: () => {
      fields.requestId++;
      fields.offset += BLOCK_BYTES;
      encodeHeader(into, 0, fields);
    },
  },
  ...[1, 8, 64].map((count) => decoding(count, false, true)),
  ...[1, 8, 64].map((count) => decoding(count, true, true)),
  decoding(64, true, false),
]);
process.exitCode = frames > 0 ? 0 : 1;

/**
 * Inside a `HostClient`: argv is the volume's url, who answers reads, the client's number, and its first block. It reads and writes words in a few blocks,
 * several at a time, and prints each call before it is made and each answer when it is there. It ends with stdin.
 */
import { setTimeout } from 'node:timers/promises';
import { connect } from '../../src/client/index.ts';
import type { HistoryLine } from './host-client.ts';

const LANES = 4;
const BLOCKS = 6;
/** Between two calls of a lane: the nodes need the processor too. */
const PAUSE_MS = 2;

type Reads = 'primary' | 'any';
const [url, reads, who, firstBlock] = process.argv.slice(2) as [string, Reads, string, string];
/** The kernel's monotonic clock: the same one in every process of this machine. */
const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;
const say = (line: HistoryLine): void => void process.stdout.write(`${JSON.stringify(line)}\n`);
let stopped = false;
process.stdin.on('end', () => (stopped = true)).resume();
process.stdin.on('error', () => process.exit(1));

const volume = await connect(url, { connectMs: 60_000, retryMs: Infinity, reads });
let n = 0;

async function lane(first: number): Promise<void> {
  for (let i = first; !stopped; i++) {
    const id = ++n;
    const block = Number(firstBlock) + ((i * 5 + first) % BLOCKS);
    const bytes = Buffer.alloc(8);
    const value = Number(who) * 1e9 + id;
    const kind = i % 2 === 0 ? 'write' : 'read';
    bytes.writeDoubleLE(value);
    say({ id, block, kind, value: kind === 'write' ? value : 0, calledMs: nowMs() });
    if (kind === 'write') {
      await volume.write(block * 4096, bytes);
      say({ id, value, answeredMs: nowMs() });
    } else {
      const read = Buffer.from(await volume.read(block * 4096, 8)).readDoubleLE();
      say({ id, value: read, answeredMs: nowMs() });
    }
    await setTimeout(PAUSE_MS);
  }
}

await Promise.all(Array.from({ length: LANES }, (_, i) => lane(i)));
await volume.close();
process.stdin.destroy();

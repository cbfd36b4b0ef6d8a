/** The ledger of the show scripts finds what is lost, torn, or made up; on a device in memory that can be told to lie. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { BlockDevice } from '../../src/base/device.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { Ledger } from '../show/ledger.ts';

const BLOCK = 4096;
const BLOCKS = 100;
const test = suite('ledger');

/** As far away as a real one: its answers come in a later turn. */
class SlowDevice extends MemoryDevice {
  override async write(offset: number, bytes: Uint8Array): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    return super.write(offset, bytes);
  }
}

/** A ledger whose clients have stopped, on its device. */
async function written(): Promise<{ ledger: Ledger; device: BlockDevice }> {
  const device = new SlowDevice(2 * BLOCKS * BLOCK);
  const ledger = new Ledger([device, device], { baseBytes: 0, blocksEach: BLOCKS });
  await ledger.more(4 * BLOCKS);
  ledger.hold();
  await ledger.allHeld();
  return { ledger, device };
}

test('what was acknowledged is there', async () => {
  const { ledger, device } = await written();
  assert.equal(await ledger.check(device), []);
  ledger.release();
  await ledger.more(10);
  await ledger.stop();
  assert.equal(await ledger.check(device), []);
});

for (const [what, change, found] of [
  ['a lost write', (words: Float64Array) => words.fill(words[0]! - BLOCKS), /was acknowledged/],
  ['a torn block', (words: Float64Array) => words.fill(0, 256), /torn/],
  ['a number that nobody wrote', (words: Float64Array) => words.fill(1e9), /last try/],
] as const) {
  test(`${what} is found`, async () => {
    const { ledger, device } = await written();
    const bytes = await device.read(7 * BLOCK, BLOCK);
    const words = new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + BLOCK));
    change(words);
    await device.write(7 * BLOCK, new Uint8Array(words.buffer));
    const wrong = await ledger.check(device);
    assert.is(wrong.length, 1);
    assert.match(wrong[0]!, found);
    await ledger.stop();
  });
}

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MiB } from '../../src/base/units.ts';
import { connect } from '../../src/client/index.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { TwinServer } from '../support/twin-server.ts';
import { blockDeviceContract, isSerial, type Made, rejectsWith, sameBytes } from './block-device.ts';

blockDeviceContract('memory twin', async () => ({ device: new MemoryDevice(8 * MiB), done: async () => {} }));

const overTcp = (connections: number, prepare: (twin: TwinServer) => void) => async (): Promise<Made> => {
  const twin = await TwinServer.start();
  prepare(twin);
  const device = await connect(twin.url, { connections });
  return {
    device,
    done: async () => {
      await device.close();
      await twin.stop();
    },
  };
};

blockDeviceContract(
  'client over TCP',
  overTcp(1, () => {}),
);
blockDeviceContract(
  'client over three connections, replies reversed',
  overTcp(3, (twin) => (twin.reverse = true)),
);
blockDeviceContract(
  'client of a server with narrow limits',
  overTcp(2, (twin) => {
    twin.limits = { maxPayloadBytes: 262_144, maxInFlightBytes: 300_000, maxInFlightRequests: 2, sessionWindow: 2 };
  }),
);

test('the checks of the contract bite', async () => {
  const outcome = (work: () => Promise<void>): Promise<string> => work().then(() => 'passed', String);
  assert.match(await outcome(async () => sameBytes(Uint8Array.of(1, 2), Uint8Array.of(1, 3))), 'byte 1 is 2, not 3');
  assert.match(await outcome(async () => sameBytes(Uint8Array.of(1), Uint8Array.of(1, 3))), 'length');
  assert.match(await outcome(() => rejectsWith('CLOSED', async () => {})), 'CLOSED');
  const writes = [
    { offset: 0, length: 3000, value: 1 },
    { offset: 1000, length: 3096, value: 2 },
  ];
  const block = new Uint8Array(4096).fill(1, 0, 3000).fill(2, 3000);
  assert.ok(isSerial(block, 0, writes), 'the first write came last');
  assert.ok(isSerial(block.fill(2, 1000), 0, writes), 'the second write came last');
  assert.not(isSerial(block.fill(1, 1000, 1001), 0, writes), 'a mixture');
  assert.not(isSerial(new Uint8Array(4096), 0, writes), 'nothing was written');
});

test.run();

import { MiB } from '../../src/base/units.ts';
import { connect } from '../../src/client/index.ts';
import { MemoryDevice } from '../support/memory-device.ts';
import { TwinServer } from '../support/twin-server.ts';
import { blockDeviceContract, type Made } from './block-device.ts';

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

/**
 * Puts k0 to k(N-1) into an etcd or into what speaks Redis, so that every GET of the load generators finds its key:
 * `peers-fill etcd|redis ADDRESS KEYS BYTES`. The etcd3 client is found in the folder ETCD_NPM.
 */
import { createRequire } from 'node:module';
import { randomBytes } from 'node:crypto';
import { Redis } from 'ioredis';

interface EtcdClient {
  kv: { put(request: { key: Buffer; value: Buffer }): Promise<unknown> };
  close(): void;
}

const AT_ONCE = 64;
const [kind, address, keys, bytes] = process.argv.slice(2);
if (!['etcd', 'redis'].includes(kind ?? '') || bytes === undefined) {
  process.stderr.write('usage: peers-fill etcd|redis ADDRESS KEYS BYTES\n');
  process.exit(2);
}

async function fill(put: (key: string, value: Buffer) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < Number(keys)) await put(`k${next++}`, randomBytes(Number(bytes)));
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

if (kind === 'etcd') {
  const require = createRequire(`${process.env['ETCD_NPM']}/x.js`);
  const { Etcd3 } = require('etcd3') as { Etcd3: new (options: { hosts: string }) => EtcdClient };
  const client = new Etcd3({ hosts: address! });
  await fill((key, value) => client.kv.put({ key: Buffer.from(key), value }));
  client.close();
} else {
  const [host, port] = address!.split(':');
  const client = new Redis({ host: host!, port: Number(port) });
  await fill((key, value) => client.set(key, value));
  client.disconnect();
}

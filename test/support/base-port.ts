/** A port for `holdfast up`: it and all ports that `up` counts from it are free. */
import { createServer } from 'node:net';
import { Random } from './random.ts';

const OFFSETS = [0, 1, 2, 41, 42, 81, 82, 3409, 3410];

const isFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });

export async function basePort(): Promise<number> {
  const random = new Random(process.pid);
  for (;;) {
    const base = 20_000 + random.below(8000);
    const free = await Promise.all(OFFSETS.map((offset) => isFree(base + offset)));
    if (!free.includes(false)) return base;
  }
}

/**
 * Ports for servers that are started anew at the same address. They lie below the range that the kernel takes ports from
 * for connections and for port 0: while such a server is down, nobody else can be given its port.
 */
import { randomInt } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

const LOWEST = 10_000;
const RANGE_FILE = '/proc/sys/net/ipv4/ip_local_port_range';
const lowestOfKernel = Number(readFileSync(RANGE_FILE, 'utf8').trim().split(/\s+/)[0]);

/** Processes that run side by side have neighbouring pids: each takes from a stretch of its own. */
const STRETCH = 200;
const stretches = Math.max(1, Math.floor((lowestOfKernel - LOWEST) / STRETCH));
const first = LOWEST + (process.pid % stretches) * STRETCH;
let next = randomInt(STRETCH);

/** @returns whether nobody listens there */
function isFree(port: number): Promise<boolean> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Ports of loopback that nobody listens on, and that this process has not given before. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  for (let tries = 0; ports.length < count; tries++) {
    if (tries > 2 * STRETCH) throw new Error(`no port is free from ${first} to ${first + STRETCH - 1}`);
    const port = first + (next++ % STRETCH);
    if (await isFree(port)) ports.push(port);
  }
  return ports;
}

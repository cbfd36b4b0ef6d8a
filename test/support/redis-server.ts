/** The real redis-server, if it is installed: in memory, on a loopback port, with a folder of its own. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RespClient } from './resp-client.ts';

export const hasTool = (name: string): boolean => spawnSync(name, ['--version']).status === 0;

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

export class RedisServer {
  readonly port: number;
  private readonly child: ChildProcess;
  private readonly folder: string;

  private constructor(child: ChildProcess, port: number, folder: string) {
    this.child = child;
    this.port = port;
    this.folder = folder;
  }

  static async start(...flags: string[]): Promise<RedisServer> {
    const folder = mkdtempSync(join(tmpdir(), 'holdfast-redis-'));
    for (let tries = 0; ; tries++) {
      const port = await freePort();
      const where = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder];
      const child = spawn('redis-server', [...where, '--save', '', '--appendonly', 'no', ...flags], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      // Somebody else may have taken the port meanwhile.
      if (await isReady(child)) return new RedisServer(child, port, folder);
      if (tries === 5) throw new Error('redis-server does not start');
    }
  }

  client(): Promise<RespClient> {
    return RespClient.open(this.port);
  }

  async stop(): Promise<void> {
    const gone = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGKILL');
    await gone;
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function isReady(child: ChildProcess): Promise<boolean> {
  return new Promise((resolve) => {
    let output = '';
    child.stdout!.on('data', (chunk: Buffer) => {
      output += chunk.toString();
      if (output.includes('Ready to accept connections')) resolve(true);
    });
    child.once('exit', () => resolve(false));
  });
}

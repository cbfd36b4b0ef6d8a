/**
 * A TCP way to a server that can fall silent: then it takes connections and bytes and hands nothing on, as a node does
 * that was stopped, or a link that was cut, with its connections alive.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';

export class SwallowingProxy {
  /** Connections that were ever taken. */
  accepted = 0;
  address = '';
  private silent = false;
  private readonly server: Server;
  private readonly sockets: Set<Socket> = new Set();

  private constructor(target: number) {
    this.server = createServer({ noDelay: true }, (near) => {
      this.accepted++;
      const far = connect({ port: target, host: '127.0.0.1', noDelay: true });
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.sockets.add(from);
        from.on('data', (bytes: Buffer) => {
          if (!this.silent) to.write(bytes);
        });
        from.on('error', () => {});
        from.on('close', () => {
          this.sockets.delete(from);
          // A stopped node closes nothing.
          if (!this.silent || from === near) to.destroy();
        });
      }
    });
  }

  static start(target: number): Promise<SwallowingProxy> {
    const proxy = new SwallowingProxy(target);
    return new Promise((resolve, reject) => {
      proxy.server.once('error', reject);
      proxy.server.listen(0, '127.0.0.1', () => {
        proxy.address = `127.0.0.1:${(proxy.server.address() as AddressInfo).port}`;
        resolve(proxy);
      });
    });
  }

  /** From now on nothing gets through, in either direction. What was swallowed is lost. */
  fallSilent(): void {
    this.silent = true;
  }

  drop(): void {
    for (const socket of this.sockets) socket.destroy();
  }

  /** Refuses connections, and ends those that there are. */
  close(): Promise<void> {
    this.silent = false;
    this.drop();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }
}

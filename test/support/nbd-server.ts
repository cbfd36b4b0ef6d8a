/**
 * An NBD server for tests: sessions on real sockets over a volume in memory. As plain as can be, each request is
 * performed at once; it is no model for a real edge except in how it uses the session.
 */
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net';
import type { HoldfastError } from '../../src/base/errors.ts';
import { checkCall } from '../../src/base/check-call.ts';
import { type Status, allocationStatus, dirtyStatus, encodeBlockStatus } from '../../src/nbd/block-status.ts';
import { COMMANDS } from '../../src/nbd/constants.ts';
import type { NbdExport } from '../../src/nbd/exports.ts';
import { MAX_REPLY_HEADER_BYTES } from '../../src/nbd/replies.ts';
import { NbdSession } from '../../src/nbd/session.ts';
import type { NbdRequest } from '../../src/nbd/transmission.ts';
import type { MemoryDisk } from './memory-device.ts';

export interface ServedExport extends NbdExport {
  readonly disk: MemoryDisk;
  /** Ranges that changed since any mark, ascending. */
  changed?: Array<{ offsetBytes: number; lengthBytes: number }>;
}

export class NbdTestServer {
  /** Session ends that the client did not ask for. */
  readonly failures: string[] = [];
  connections = 0;
  private readonly devices: ServedExport[];
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  constructor(devices: ServedExport[]) {
    this.devices = devices;
    this.server = createServer((socket) => this.serve(socket));
  }

  /** `path`: a Unix socket; without it a TCP port of the system's choice on 127.0.0.1, which is returned. */
  async listen(path?: string): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.server.once('error', reject);
      if (path === undefined) this.server.listen(0, '127.0.0.1', resolve);
      else this.server.listen(path, resolve);
    });
    return path === undefined ? (this.server.address() as AddressInfo).port : 0;
  }

  async close(): Promise<void> {
    for (const socket of this.sockets) socket.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }

  private serve(socket: Socket): void {
    this.connections++;
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('close', () => this.sockets.delete(socket));
    socket.on('error', () => socket.destroy());
    const { devices } = this;
    let disk: ServedExport | null = null;
    const session: NbdSession = new NbdSession(
      {
        send: (bytes) => void socket.write(bytes),
        onStartTls: () => void socket.destroy(),
        onAgreed: (agreed) => void (disk = agreed.export as ServedExport),
        onPayload: (request, doneBytes) => new Uint8Array(Math.min(request.lengthBytes - doneBytes, 256 * 1024)),
        onPayloadPart: (request, doneBytes, part) => {
          disk!.disk.write(request.offsetBytes + doneBytes, part);
          if (doneBytes + part.length === request.lengthBytes) answer(socket, session, request);
        },
        onRequest: (request) => perform(socket, session, disk!, request),
        onEnd: (soft, reason) => {
          if (!soft) this.failures.push(reason);
          socket.end();
        },
      },
      {
        list: () => devices,
        find: (name) => devices.find((device) => name === '' || device.name === name) ?? null,
      },
      { tls: 'off' },
    );
    socket.on('data', (chunk) => void session.push(chunk));
    session.start();
  }
}

function answer(socket: Socket, session: NbdSession, request: NbdRequest): void {
  const bytes = new Uint8Array(MAX_REPLY_HEADER_BYTES);
  socket.write(bytes.subarray(0, session.replies.done(bytes, 0, request)));
}

function perform(socket: Socket, session: NbdSession, device: ServedExport, request: NbdRequest): void {
  const { disk } = device;
  const { command, offsetBytes, lengthBytes } = request;
  try {
    // The session promised that this never throws.
    checkCall(device, false, 'request', offsetBytes, lengthBytes);
  } catch (error) {
    socket.write(session.replies.failed(request, error as HoldfastError));
    return;
  }
  if (command === COMMANDS.READ) {
    const head = new Uint8Array(MAX_REPLY_HEADER_BYTES);
    socket.write(head.subarray(0, session.replies.read(head, 0, request, offsetBytes, lengthBytes)));
    socket.write(disk.read(offsetBytes, lengthBytes));
    return;
  }
  if (command === COMMANDS.BLOCK_STATUS) {
    const { contexts } = session.agreed!;
    for (const [index, { id, mark }] of contexts.entries()) {
      const status = mark === null ? allocation(disk, request) : dirty(device);
      socket.write(encodeBlockStatus(request, id, status, index === contexts.length - 1));
    }
    return;
  }
  if (command === COMMANDS.TRIM) disk.trim(offsetBytes, lengthBytes);
  else if (command === COMMANDS.WRITE_ZEROES) disk.zero(offsetBytes, lengthBytes);
  answer(socket, session, request);
}

function allocation(disk: MemoryDisk, { offsetBytes, lengthBytes }: NbdRequest): Status {
  return allocationStatus(disk.extents(offsetBytes, lengthBytes, 4096));
}

function dirty({ changed = [], sizeBytes }: ServedExport): Status {
  const runs = [];
  let at = 0;
  for (const { offsetBytes, lengthBytes } of changed) {
    if (offsetBytes > at) runs.push({ offsetBytes: at, lengthBytes: offsetBytes - at, changed: false });
    runs.push({ offsetBytes, lengthBytes, changed: true });
    at = offsetBytes + lengthBytes;
  }
  if (sizeBytes > at) runs.push({ offsetBytes: at, lengthBytes: sizeBytes - at, changed: false });
  return dirtyStatus(runs);
}

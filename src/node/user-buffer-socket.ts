/**
 * Server sockets that are read into one buffer of ours.
 *
 * `net.connect` takes an `onread` option; a server's sockets get none, so Node allocates 64 KiB per read and the
 * garbage collector pays for it. The handle of an accepted socket is moved into a socket that was made with `onread`.
 * That uses `_handle` and `_server`, which are not documented: where they are not as expected, the socket is used as it
 * came, through its `data` events. Both ways are tested (HOLDFAST_USER_BUFFER=off forces the second). A socket that TLS
 * may take over later has to be read through its events: TLS wants the handle, and what was received, in their places.
 */
import { Socket, type SocketConstructorOpts } from 'node:net';

/**
 * All connections of a thread share it: a chunk is consumed, or copied, before the next read. No Buffer, because the
 * `slice` of a Buffer is a view and not a copy.
 */
const BUFFER = new Uint8Array(256 * 1024);

interface Inside {
  _handle: { useUserBuffer?: unknown; reading?: boolean } | null;
  _server: object | null;
}

/**
 * @param take gets each chunk; it must not keep it. @returns false to stop reading until `resume`
 * @returns the socket to use from now on; the one that was given must not be used any more
 */
export function readIntoUserBuffer(accepted: Socket, take: (socket: Socket, chunk: Uint8Array) => boolean): Socket {
  const inside = accepted as unknown as Inside;
  const handle = inside._handle;
  // Of a socket of TLS the handle gives what is still to be decrypted.
  const plain = !(accepted as { encrypted?: true }).encrypted;
  const possible = plain && handle !== null && typeof handle?.useUserBuffer === 'function' && '_server' in inside;
  if (!possible || process.env['HOLDFAST_USER_BUFFER'] === 'off') {
    readThroughEvents(accepted, (chunk) => take(accepted, chunk));
    return accepted;
  }
  const socket: Socket = new Socket({
    handle,
    readable: true,
    writable: true,
    allowHalfOpen: accepted.allowHalfOpen,
    onread: {
      buffer: BUFFER,
      callback: (count: number) => take(socket, BUFFER.subarray(0, count)),
    },
  } as SocketConstructorOpts);
  (socket as unknown as Inside)._server = inside._server;
  inside._handle = null;
  inside._server = null;
  socket.resume();
  return socket;
}

/**
 * @param take gets each chunk. @returns false to stop reading until `resume`
 * @returns stops reading for good: what comes after it stays in the socket
 */
export function readThroughEvents(socket: Socket, take: (chunk: Uint8Array) => boolean): () => void {
  const onData = (chunk: Buffer): void => {
    if (!take(chunk)) socket.pause();
  };
  socket.on('data', onData);
  socket.resume();
  return () => {
    socket.pause();
    socket.off('data', onData);
  };
}

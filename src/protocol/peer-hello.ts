/**
 * The beginning and the end of a stream between replicas: HELLO of both ends, GOODBYE of the one that ends it. Pure.
 *
 * Guarantees: two nodes that say HELLO to each other and find nothing wrong mean the same volume, belong to the same
 * register (as far as both belong to one), are who the other takes them for, and have a version in common.
 */
import { codeOfStatus, ERRORS, HoldfastError } from '../base/errors.ts';
import { ByteReader, ByteWriter } from './codec.ts';
import { MAX_PEER_NAME_BYTES, MAX_REASON_BYTES, PEER_MESSAGES } from './peer-frame.ts';
import { fromHex, toHex } from './peer.ts';

export const MIN_PEER_VERSION = 1;
export const MAX_PEER_VERSION = 1;
const ID_BYTES = 16;
const NO_ID = '0'.repeat(2 * ID_BYTES);

export interface PeerHello {
  minVersion: number;
  maxVersion: number;
  /** 32 hexadecimal digits; so are the other ids. */
  volumeId: string;
  /** Of the register that the sender's disk belongs to; zeros: none yet. */
  registerId: string;
  /** Random, drawn by the node that dials; the other one repeats it. */
  streamId: string;
  /** The volume's name, for texts. */
  volume: string;
  from: string;
  /** Whom the sender believes to speak with. */
  to: string;
  /** Of the sender's process, for logs: another one after each start. */
  bootId: string;
}

/** @throws RangeError for a name of more than 255 bytes, or an id that is none */
export function encodePeerHello(hello: PeerHello): Uint8Array {
  const w = new ByteWriter(PEER_MESSAGES.HELLO.payload[1]).u8(hello.minVersion).u8(hello.maxVersion);
  for (const id of [hello.volumeId, hello.registerId, hello.streamId]) w.raw(fromHex(id));
  for (const text of [hello.volume, hello.from, hello.to, hello.bootId]) {
    if (Buffer.byteLength(text) > MAX_PEER_NAME_BYTES) throw new RangeError(`a name of ${text.length} characters`);
    w.string(text, MAX_PEER_NAME_BYTES);
  }
  return w.finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodePeerHello(payload: Uint8Array): PeerHello {
  const r = new ByteReader(payload, 'HELLO of a replica');
  const hello = {
    minVersion: r.u8(),
    maxVersion: r.u8(),
    volumeId: toHex(r.raw(ID_BYTES)),
    registerId: toHex(r.raw(ID_BYTES)),
    streamId: toHex(r.raw(ID_BYTES)),
    volume: r.string(MAX_PEER_NAME_BYTES),
    from: r.string(MAX_PEER_NAME_BYTES),
    to: r.string(MAX_PEER_NAME_BYTES),
    bootId: r.string(MAX_PEER_NAME_BYTES),
  };
  // A later version may say more behind this.
  if (hello.maxVersion <= MAX_PEER_VERSION) r.end();
  return hello;
}

/** What this end says, or would say: whom it expects the other's HELLO from. */
export type Expected = Pick<PeerHello, 'volumeId' | 'registerId' | 'volume' | 'from'> & {
  /** Null where anybody may call. */
  to: string | null;
  streamId: string | null;
};

/**
 * What is wrong with the other end's HELLO; null: nothing.
 * WRONG_VERSION, NO_SUCH_VOLUME (another volume), INVALID_ARGUMENT (another node, another register, another stream).
 */
export function refusalOf(own: Expected, hello: PeerHello): HoldfastError | null {
  const wrong = (code: 'WRONG_VERSION' | 'NO_SUCH_VOLUME' | 'INVALID_ARGUMENT', detail: string, remedy: string) =>
    new HoldfastError(code, {
      operation: 'HELLO between replicas',
      peer: hello.from,
      volume: own.volume,
      detail,
      remedy,
    });
  const { minVersion, maxVersion } = hello;
  if (minVersion > MAX_PEER_VERSION || maxVersion < MIN_PEER_VERSION) {
    const detail = `${hello.from} speaks ${minVersion} to ${maxVersion}, ${own.from} ${MIN_PEER_VERSION} to ${MAX_PEER_VERSION}`;
    return wrong('WRONG_VERSION', detail, 'bring the older node up to date');
  }
  const addresses = 'see which address belongs to which node';
  if (hello.to !== own.from) {
    return wrong('INVALID_ARGUMENT', `${hello.from} called ${hello.to} and reached ${own.from}`, addresses);
  }
  if (hello.from === own.from || (own.to !== null && hello.from !== own.to)) {
    return wrong('INVALID_ARGUMENT', `${own.from} called ${own.to ?? own.from} and reached ${hello.from}`, addresses);
  }
  if (hello.volumeId !== own.volumeId) {
    const detail = `${hello.from} has ${hello.volume} as ${hello.volumeId}, ${own.from} has ${own.volume} as ${own.volumeId}`;
    return wrong(
      'NO_SUCH_VOLUME',
      detail,
      'another cluster has a volume of that name: see which cluster each address belongs to',
    );
  }
  const bound = own.registerId !== NO_ID && hello.registerId !== NO_ID;
  if (bound && hello.registerId !== own.registerId) {
    const detail = `${hello.from} belongs to register ${hello.registerId}, ${own.from} to ${own.registerId}`;
    return wrong(
      'INVALID_ARGUMENT',
      detail,
      'one of them belongs to another cluster, is a copy from another group, or the register was made anew',
    );
  }
  if (own.streamId !== null && hello.streamId !== own.streamId) {
    return wrong('INVALID_ARGUMENT', `${hello.from} answers to another stream`, 'see what stands between the nodes');
  }
  return null;
}

/** Status and reason, cut to its limit. Codes that do not travel become IO_ERROR. */
export function encodePeerGoodbye(error: HoldfastError): Uint8Array {
  const travels = error.status < 40 || error.code === 'ACCESS';
  const status = travels ? error.status : ERRORS.IO_ERROR.status;
  const { detail, remedy } = error.details;
  const text = remedy === undefined ? (detail ?? '') : `${detail ?? ''}. To remedy: ${remedy}`;
  return new ByteWriter(4 + MAX_REASON_BYTES).u16(status).string(text, MAX_REASON_BYTES).finish();
}

/** @throws HoldfastError BAD_FRAME */
export function decodePeerGoodbye(payload: Uint8Array): HoldfastError {
  const r = new ByteReader(payload, 'GOODBYE of a replica');
  const code = codeOfStatus(r.u16());
  const detail = r.string(MAX_REASON_BYTES);
  r.end();
  return new HoldfastError(code, { operation: 'the other end ended the stream', detail });
}

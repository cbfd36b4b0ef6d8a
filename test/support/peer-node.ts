/**
 * A node of the peers' tests: a PeerNetwork, and a volume that writes down what it is told. Run as a program
 * (`node peer-node.js NAME`) it is the other process: it checks each record, acknowledges it, and prints where it listens.
 */
import { randomUUID } from 'node:crypto';
import * as assert from 'uvu/assert';
import { type PeerLimits, PeerNetwork, type PeerPort, type PeerVolume } from '../../src/node/peer-server.ts';
import type { PeerLink, PeerMessage } from '../../src/replication/peer-messages.ts';
import { until } from './until.ts';

export const VOLUME_ID = 'd1'.repeat(16);
export const REGISTER_ID = 'e2'.repeat(16);

/** Remembers all, in order. */
export class Witness implements PeerVolume {
  readonly name: string;
  readonly volumeId: string;
  register: string;
  readonly links: PeerLink[] = [];
  readonly ends: Array<{ node: string; link: PeerLink | null }> = [];
  readonly got: Array<{ link: PeerLink; message: PeerMessage }> = [];
  onMessage: ((link: PeerLink, message: PeerMessage) => void) | null = null;

  constructor(name = 'demo', volumeId = VOLUME_ID, register = REGISTER_ID) {
    this.name = name;
    this.volumeId = volumeId;
    this.register = register;
  }

  registerId(): string {
    return this.register;
  }

  connected(link: PeerLink): void {
    this.links.push(link);
  }

  closed(node: string, link: PeerLink | null): void {
    this.ends.push({ node, link });
  }

  received(link: PeerLink, message: PeerMessage): void {
    if (this.onMessage === null) this.got.push({ link, message });
    else this.onMessage(link, message);
  }

  get messages(): PeerMessage[] {
    return this.got.map(({ message }) => message);
  }
}

export class PeerNode {
  readonly name: string;
  readonly network: PeerNetwork;
  readonly witness: Witness;
  readonly port: PeerPort;
  readonly log: string[] = [];
  address = '';

  private constructor(name: string, witness: Witness, limits: Partial<PeerLimits>) {
    this.name = name;
    this.witness = witness;
    const log = (message: string, fields: object): void => void this.log.push(`${message} ${JSON.stringify(fields)}`);
    this.network = new PeerNetwork({ node: name, bootId: randomUUID(), limits, log });
    this.port = this.network.join(witness);
  }

  static async start(name: string, witness = new Witness(), limits: Partial<PeerLimits> = {}): Promise<PeerNode> {
    const node = new PeerNode(name, witness, limits);
    node.address = await node.network.listen('127.0.0.1:0');
    return node;
  }
}

/** Opens a stream that must come to be. */
export async function linked(a: PeerNode, name: string, address: string): Promise<PeerLink> {
  const before = a.witness.links.length;
  a.port.connect(name, address);
  await until(() => a.witness.links.length > before || a.witness.ends.length > 0, `a stream to ${name}`);
  assert.is(a.witness.links.length, before + 1, a.log.join('\n'));
  return a.witness.links.at(-1)!;
}

/** A record of the tests: its number in front, every other byte the same. */
export function fillRecord(bytes: Uint8Array, index: number): void {
  bytes.fill(index % 251);
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, index, true);
}

/** @returns its number, or null if a byte of it is not as it was made */
export function recordIndex(bytes: Uint8Array): number | null {
  const index = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
  const rest = Buffer.from(bytes.buffer, bytes.byteOffset + 4, bytes.length - 4);
  return rest.equals(Buffer.alloc(rest.length, index % 251)) ? index : null;
}

if (process.argv[1]?.endsWith('peer-node.js')) {
  const witness = new Witness();
  let next = 0;
  witness.onMessage = (link, message) => {
    if (message.type === 'BEAT') link.send({ type: 'ECHO', n: message.n, promiseMs: 500 });
    if (message.type !== 'RECORD') return;
    const index = recordIndex(message.bytes);
    // A record that is lost, doubled or damaged shows: it is not acknowledged, and those behind it are not either.
    if (index !== next)
      return link.send({ type: 'REFUSED', epoch: 0, reason: `record ${index} where ${next} must come` });
    next++;
    link.send({ type: 'ACK', position: { epoch: 1, seq: index } });
  };
  const node = await PeerNode.start(process.argv[2]!, witness);
  process.stdout.write(`${node.address}\n`);
  // Whoever has started it is gone.
  process.stdin.resume().on('end', () => process.exit(0));
}

/**
 * Has the primary of a volume hold back its clients' changes while the last pass of a backup runs.
 *
 * Guarantees: whatever becomes of this process, the hold ends by itself; whether the volume stood still is not concluded
 * from it, but seen from the volume's position.
 */
import { HoldfastError } from '../base/errors.ts';
import { type Address, type VolumeAddress, formatAddress, parseServer, parseVolumeAddress } from '../client/address.ts';
import { Credentials } from '../client/credentials.ts';
import { Link } from '../client/link.ts';
import { locateOver } from '../client/scout.ts';
import { decodeJson, encodeJson } from '../protocol/json.ts';
import { MESSAGES } from '../protocol/messages.ts';
import type { Pause } from './export-volume.ts';

const ANSWER_MS = 3000;
const HELLO = { session: 0n, generation: 0, client: 'holdfast volume export' };

export class WriteHold implements Pause {
  private readonly address: VolumeAddress;
  private readonly credentials: Credentials;
  private readonly ms: number;
  private held: { address: Address; volumeId: string; token: string } | null = null;

  constructor(url: string, ms: number) {
    this.address = parseVolumeAddress(url);
    this.credentials = new Credentials({}, this.address.secure);
    this.ms = ms;
  }

  async begin(signal: AbortSignal): Promise<void> {
    const { address, volumeId } = await this.primary(signal);
    const { token } = await this.ask(address, { op: 'hold-writes', volumeId, ms: this.ms });
    this.held = { address, volumeId, token: String(token) };
  }

  async end(): Promise<void> {
    if (this.held === null) return;
    const { address, volumeId, token } = this.held;
    // Without an answer it ends by its time.
    await this.ask(address, { op: 'let-writes', volumeId, token }).catch(() => {});
  }

  /** As the address of the volume says: under TLS, or not. */
  private async ask(address: Address, request: object): Promise<Record<string, unknown>> {
    const { signal } = new AbortController();
    const { link } = await Link.open(address, HELLO, ANSWER_MS, signal, this.credentials);
    try {
      return decodeJson(await link.control(MESSAGES.ADMIN.number, encodeJson(request), ANSWER_MS));
    } finally {
      link.destroy();
    }
  }

  /** As one of the servers knows it. */
  private async primary(signal: AbortSignal): Promise<{ address: Address; volumeId: string }> {
    const { servers, volume } = this.address;
    for (const server of servers) {
      const opened = await Link.open(server, HELLO, ANSWER_MS, signal, this.credentials).catch(() => null);
      if (opened === null) continue;
      try {
        const { primaryAddress, volumeId } = await locateOver(opened.link, volume, ANSWER_MS);
        const id = Buffer.from(volumeId).toString('hex');
        const address = parseServer(primaryAddress);
        if (address !== null) return { address, volumeId: id };
      } catch {
        // Another one may know.
      } finally {
        opened.link.destroy();
      }
    }
    const asked = servers.map(formatAddress).join(', ');
    throw new HoldfastError('NOT_PRIMARY', {
      operation: 'hold writes',
      volume,
      detail: `no primary known to ${asked}`,
    });
  }
}

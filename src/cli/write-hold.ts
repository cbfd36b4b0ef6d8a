/**
 * Has the primary of a volume hold back its clients' changes while the last pass of a backup runs.
 *
 * Guarantees: whatever becomes of this process, the hold ends by itself; whether the volume stood still is not concluded
 * from it, but seen from the volume's position.
 */
import { HoldfastError } from '../base/errors.ts';
import { formatAddress, parseVolumeAddress } from '../client/address.ts';
import { admin } from '../client/admin.ts';
import { Link } from '../client/link.ts';
import { locateOver } from '../client/scout.ts';
import type { Pause } from './export-volume.ts';

const ANSWER_MS = 3000;
const CLIENT = 'holdfast volume export';

export class WriteHold implements Pause {
  private readonly url: string;
  private readonly ms: number;
  private held: { address: string; volumeId: string; token: string } | null = null;

  constructor(url: string, ms: number) {
    this.url = url;
    this.ms = ms;
  }

  async begin(signal: AbortSignal): Promise<void> {
    const { address, volumeId } = await this.primary(signal);
    const request = { op: 'hold-writes', volumeId, ms: this.ms };
    const { token } = await admin(address, request, { timeoutMs: ANSWER_MS, clientName: CLIENT });
    this.held = { address, volumeId, token: String(token) };
  }

  async end(): Promise<void> {
    if (this.held === null) return;
    const { address, volumeId, token } = this.held;
    // Without an answer it ends by its time.
    await admin(address, { op: 'let-writes', volumeId, token }, { timeoutMs: ANSWER_MS }).catch(() => {});
  }

  /** As one of the servers knows it. */
  private async primary(signal: AbortSignal): Promise<{ address: string; volumeId: string }> {
    const { servers, volume } = parseVolumeAddress(this.url);
    for (const server of servers) {
      const hello = { session: 0n, generation: 0, client: CLIENT };
      const opened = await Link.open(server, hello, ANSWER_MS, signal).catch(() => null);
      if (opened === null) continue;
      try {
        const { primaryAddress, volumeId } = await locateOver(opened.link, volume, ANSWER_MS);
        const id = Buffer.from(volumeId).toString('hex');
        if (primaryAddress !== '') return { address: primaryAddress, volumeId: id };
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

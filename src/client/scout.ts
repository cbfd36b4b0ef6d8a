/**
 * Asks nodes where a volume is, each over a link of its own that is closed at once.
 *
 * Guarantees: one question at a time for each server that is to be left out, however many ask it; a node that does not
 * answer costs its time limit and nothing else; after `close` no link is left.
 */
import { HoldfastError } from '../base/errors.ts';
import { decodeLocation, encodeLocate, type VolumeLocation } from '../protocol/location.ts';
import { MESSAGES } from '../protocol/messages.ts';
import { type Address, formatAddress } from './address.ts';
import { Link } from './link.ts';
import type { Settings } from './options.ts';
import type { Servers } from './servers.ts';

/** Even an impatient client gives a node so long to answer. */
const LEAST_ANSWER_MS = 250;

export class Scout {
  private readonly servers: Servers;
  private readonly volume: string;
  private readonly settings: Settings;
  private readonly abort = new AbortController();
  private readonly asking: Map<string, Promise<VolumeLocation | null>> = new Map();
  private turn = 0;

  constructor(servers: Servers, volume: string, settings: Settings) {
    this.servers = servers;
    this.volume = volume;
    this.settings = settings;
  }

  /**
   * Asks one server after the other, but not `except`, until one knows. What it says is learned.
   * @returns what it said; null if none knew
   */
  ask(except = ''): Promise<VolumeLocation | null> {
    const under = this.asking.get(except);
    if (under !== undefined) return under;
    const work = this.askAll(except).finally(() => this.asking.delete(except));
    this.asking.set(except, work);
    return work;
  }

  private async askAll(except: string): Promise<VolumeLocation | null> {
    const others = this.servers.inOrder().filter((server) => formatAddress(server) !== except);
    // Whoever suspects the primary asks another one each time: one may be cut off, or behind.
    const first = except === '' ? 0 : this.turn++ % Math.max(1, others.length);
    for (const server of [...others.slice(first), ...others.slice(0, first)]) {
      if (this.abort.signal.aborted) return null;
      const location = await this.askOne(server).catch((error: unknown) => {
        if (error instanceof HoldfastError) return null;
        throw error;
      });
      if (location !== null && this.servers.learn(location)) return location;
    }
    return null;
  }

  private async askOne(server: Address): Promise<VolumeLocation> {
    const timeoutMs = Math.max(LEAST_ANSWER_MS, this.settings.suspectMs);
    const hello = { session: 0n, generation: 0, client: this.settings.clientName };
    const { signal } = this.abort;
    const { link } = await Link.open(server, hello, timeoutMs, signal, this.settings.credentials);
    const stop = (): void => link.destroy();
    signal.addEventListener('abort', stop);
    try {
      return await locateOver(link, this.volume, timeoutMs);
    } finally {
      signal.removeEventListener('abort', stop);
      link.destroy();
    }
  }

  close(): void {
    this.abort.abort();
  }
}

/** Asks LOCATE over a link that is past HELLO. @throws HoldfastError as the server answers, CONNECTION_LOST */
export async function locateOver(link: Link, volume: string, timeoutMs: number): Promise<VolumeLocation> {
  return decodeLocation(await link.control(MESSAGES.LOCATE.number, encodeLocate(volume), timeoutMs));
}

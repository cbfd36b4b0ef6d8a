/**
 * The replicas that are in sync by the last LOCATE, and a link for reading to each.
 *
 * Guarantees: at most one link per member, and none to who is not in sync by the last answer; one refresh at a time, every
 * few seconds and after a loss, with a pause between; after `close` there is no link and no timer.
 */
import { asHoldfastError, HoldfastError } from '../base/errors.ts';
import type { VolumeInfo } from '../protocol/handshake.ts';
import { formatAddress, parseServer } from './address.ts';
import type { Settings } from './options.ts';
import { ReadLink } from './read-link.ts';
import type { Scout } from './scout.ts';
import type { Servers } from './servers.ts';

const REFRESH_EVERY_MS = 5_000;
/** Between a refresh and the next one, whoever asks for it. */
const REFRESH_PAUSE_MS = 100;

export interface MembersOf {
  readonly volume: string;
  readonly settings: Settings;
  readonly servers: Servers;
  readonly scout: Scout;
  accept(info: VolumeInfo): void;
}

export class Members {
  /** Why the last refresh could not reach a member, by node. */
  readonly failures: Map<string, HoldfastError> = new Map();
  private readonly of: MembersOf;
  /** Whether there is to be a link to the primary as well, and to the others even if they are said to answer nobody. */
  private readonly withPrimary: boolean;
  private readonly links: Map<string, ReadLink> = new Map();
  private readonly abort = new AbortController();
  private readonly timer: NodeJS.Timeout;
  private refreshing: Promise<void> | null = null;
  private refreshedMs = -Infinity;

  constructor(of: MembersOf, withPrimary: boolean) {
    this.of = of;
    this.withPrimary = withPrimary;
    this.timer = setInterval(() => void this.refresh(), REFRESH_EVERY_MS);
    this.timer.unref();
  }

  /** Those that can be read from. */
  get up(): readonly ReadLink[] {
    return [...this.links.values()];
  }

  /** Nodes that are in sync by the last answer, in a fixed order; null: nobody has answered yet. */
  get inSync(): readonly string[] | null {
    const { location } = this.of.servers;
    if (location === null) return null;
    return location.members.filter(({ inSync }) => inSync).map(({ node }) => node);
  }

  get primary(): string {
    return this.of.servers.location?.primary ?? '';
  }

  link(node: string): ReadLink | null {
    return this.links.get(node) ?? null;
  }

  /** Asks who is in sync, and connects to them. It does not fail. */
  refresh(): Promise<void> {
    this.refreshing ??= this.renew().finally(() => (this.refreshing = null));
    return this.refreshing;
  }

  private async renew(): Promise<void> {
    const pauseMs = this.refreshedMs + REFRESH_PAUSE_MS - performance.now();
    if (pauseMs > 0) await new Promise<void>((resolve) => setTimeout(resolve, pauseMs));
    const { signal } = this.abort;
    if (signal.aborted) return;
    await this.of.scout.ask();
    const wanted = this.wanted();
    for (const link of this.up) {
      const server = parseServer(wanted.get(link.node) ?? '');
      if (server === null || formatAddress(server) !== link.address) link.close();
    }
    await Promise.all([...wanted].map(([node, address]) => this.connect(node, address)));
    this.refreshedMs = performance.now();
  }

  /** Addresses by node. */
  private wanted(): Map<string, string> {
    const { location } = this.of.servers;
    if (location === null) return new Map();
    const members = location.members.filter(({ node, inSync }) => {
      return inSync && (this.withPrimary || (node !== location.primary && location.reads === 'any'));
    });
    return new Map(members.map(({ node, clientAddress }) => [node, clientAddress]));
  }

  private async connect(node: string, address: string): Promise<void> {
    const { volume, settings } = this.of;
    const { signal } = this.abort;
    const server = parseServer(address);
    if (this.links.has(node) || signal.aborted) return;
    try {
      if (server === null) throw new HoldfastError('UNREACHABLE', { detail: `no address of ${node} is known` });
      let link: ReadLink | null = null;
      const lost = (): void => {
        if (link === null || this.links.get(node) !== link) return;
        this.links.delete(node);
        void this.refresh();
      };
      link = await ReadLink.open(node, server, volume, settings, (info) => this.of.accept(info), lost, signal);
      if (signal.aborted) return link.close();
      this.links.set(node, link);
      this.failures.delete(node);
    } catch (error) {
      this.failures.set(node, asHoldfastError(error));
    }
  }

  close(): void {
    clearInterval(this.timer);
    this.abort.abort();
    const links = this.up;
    this.links.clear();
    for (const link of links) link.close();
  }
}

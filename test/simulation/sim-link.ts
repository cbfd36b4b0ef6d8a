/** One end of a simulated stream: ordered, late, held up where a link is cut. */
import type { PeerLink, PeerMessage } from '../../src/replication/peer-messages.ts';
import type { Cluster } from './cluster.ts';
import type { SimNode } from './sim-node.ts';

/** How often what is under way looks whether a cut link is mended. */
const CUT_MS = 15;

export class SimLink implements PeerLink {
  readonly node: string;
  other!: SimLink;
  open = true;
  private readonly owner: SimNode;
  private readonly cluster: Cluster;
  private lastArrivalMs = 0;
  private queue: Array<{ message: PeerMessage; sent: (() => void) | undefined }> = [];
  /** The process is gone; what it had handed to its kernel still arrives. */
  private dying = false;

  constructor(cluster: Cluster, owner: SimNode, node: string) {
    this.cluster = cluster;
    this.owner = owner;
    this.node = node;
  }

  send(message: PeerMessage, sent?: () => void): void {
    const { cluster, owner } = this;
    if (!this.open || cluster.happens(owner, `sends ${message.type}`)) return sent?.();
    this.queue.push({ message, sent });
    const { world } = cluster;
    this.lastArrivalMs = Math.max(world.nowMs + cluster.latencyMs(owner.name, this.node), this.lastArrivalMs + 0.001);
    world.after(this.lastArrivalMs - world.nowMs, () => this.deliver());
    cluster.happened(owner, `sends ${message.type}`);
  }

  private deliver(): void {
    const { world } = this.cluster;
    if (!this.open && !this.dying) return this.drop();
    // What is under way when a link is cut arrives when it is mended, if the stream still stands.
    if (this.cluster.isCut(this.owner.name, this.node)) return world.after(CUT_MS, () => this.deliver());
    const next = this.queue.shift();
    if (next === undefined) return;
    const message = copyOf(next.message);
    const { other, cluster } = this;
    const { owner: taker } = other;
    taker.receive(() => {
      if (!other.open || taker.replica === null || cluster.happens(taker, `takes ${message.type}`)) return;
      taker.replica.received(other, message);
      cluster.happened(taker, `takes ${message.type}`);
    });
    next.sent?.();
    if (this.dying && this.queue.length === 0) this.end();
  }

  private drop(): void {
    for (const { sent } of this.queue.splice(0)) sent?.();
  }

  /** The other end hears of it, unless the link is cut. */
  private end(): void {
    const { cluster, owner, node, other } = this;
    const tell = (): void => {
      if (cluster.isCut(owner.name, node)) cluster.world.after(CUT_MS, tell);
      else other.broken();
    };
    cluster.world.after(cluster.latencyMs(owner.name, node), tell);
  }

  close(): void {
    if (!this.open) return;
    this.open = false;
    this.drop();
    this.owner.links.delete(this);
    this.end();
  }

  /** The other end is gone. */
  broken(): void {
    if (!this.open) return;
    this.open = false;
    this.drop();
    this.owner.receive(() => this.owner.replica?.closed(this.node, this));
    this.owner.links.delete(this);
  }

  /** The process at this end is gone. @param arrives what it has sent may still come */
  die(arrives: boolean): void {
    this.open = false;
    if (!arrives) this.queue = [];
    for (const entry of this.queue) entry.sent = undefined;
    this.dying = this.queue.length > 0;
    if (!this.dying) this.end();
  }
}

function copyOf(message: PeerMessage): PeerMessage {
  if (message.type === 'RECORD') return { ...message, bytes: message.bytes.slice() };
  if (message.type === 'COPY') return { ...message, payload: message.payload?.slice() ?? null };
  if (message.type === 'FINISH') return { ...message, sessions: message.sessions.map((body) => body.slice()) };
  return { ...message };
}

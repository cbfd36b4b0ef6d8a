/**
 * Which nodes are there, from what they say of themselves every few seconds. It lives in memory: after a start of the
 * coordinator it fills again by itself.
 */
import { HoldfastError } from '../base/errors.ts';
import { NODE_TTL_MS, type NodeInfo, type SeenNode } from './register.ts';

const MAX_NODES = 1024;

export class NodeDirectory {
  private readonly seen: Map<string, { info: NodeInfo; atMs: number }> = new Map();

  /** @throws HoldfastError TOO_MANY */
  announce(info: NodeInfo, nowMs: number): void {
    this.expire(nowMs);
    if (this.seen.size >= MAX_NODES && !this.seen.has(info.node)) {
      throw new HoldfastError('TOO_MANY', {
        operation: 'announce',
        detail: `${MAX_NODES} nodes are known`,
        remedy: 'names of nodes must stay the same over restarts',
      });
    }
    this.seen.set(info.node, { info, atMs: nowMs });
  }

  list(nowMs: number): SeenNode[] {
    this.expire(nowMs);
    return [...this.seen.values()]
      .map(({ info, atMs }) => ({ ...info, seenAgoMs: Math.max(0, Math.round(nowMs - atMs)) }))
      .sort((a, b) => (a.node < b.node ? -1 : 1));
  }

  private expire(nowMs: number): void {
    for (const [node, { atMs }] of this.seen) if (nowMs - atMs > NODE_TTL_MS) this.seen.delete(node);
  }
}

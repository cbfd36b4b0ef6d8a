/** A reader of a node's Server-Sent Events that keeps all that came, and waits for what comes. */
import { type ClientRequest, type IncomingHttpHeaders, get } from 'node:http';
import { type ClusterView } from '../../src/cli/cluster-status.ts';
import { pause } from '../../src/cli/cluster.ts';
import type { Dirty } from '../../src/http/dirty.ts';
import type { Rates } from '../../src/http/rates.ts';
import type { Happening } from '../../src/node/timeline.ts';

const PATIENCE_MS = 30_000;

export interface Told {
  cluster: { atMs: number; view?: ClusterView; error?: string };
  rates: Rates;
  dirty: Dirty;
  happened: Happening;
}
type Name = keyof Told;

export class EventStream {
  readonly events: Array<{ event: Name; id: string; data: Told[Name] }> = [];
  status = 0;
  headers: IncomingHttpHeaders = {};
  ended = false;
  private readonly request: ClientRequest;
  private rest = '';

  constructor(url: string) {
    this.request = get(url, (response) => {
      this.status = response.statusCode!;
      this.headers = response.headers;
      response.setEncoding('utf8');
      response.on('data', (text: string) => this.take(text));
      response.on('error', () => (this.ended = true));
      response.on('close', () => (this.ended = true));
    });
    this.request.on('error', () => (this.ended = true));
  }

  private take(text: string): void {
    const parts = (this.rest + text).split('\n\n');
    this.rest = parts.pop()!;
    for (const part of parts) {
      const field = (name: string): string => new RegExp(`^${name}: (.*)$`, 'm').exec(part)?.[1] ?? '';
      if (field('event') === '') continue;
      const data = JSON.parse(field('data')) as Told[Name];
      this.events.push({ event: field('event') as Name, id: field('id'), data });
    }
  }

  of<N extends Name>(event: N): Array<Told[N]> {
    return this.events.filter((one) => one.event === event).map(({ data }) => data as Told[N]);
  }

  /** Of those that came or come still, the first that satisfies. */
  async first<N extends Name>(event: N, satisfies: (data: Told[N]) => boolean, what: string): Promise<Told[N]> {
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = this.of(event).find(satisfies);
      if (found !== undefined) return found;
      if (performance.now() > endMs || this.ended) {
        const last = JSON.stringify(this.events.slice(-40));
        throw new Error(`waited in vain for ${what}; ${this.ended ? 'the stream has ended; ' : ''}${last}`);
      }
      await pause(10);
    }
  }

  close(): void {
    this.request.destroy();
  }
}

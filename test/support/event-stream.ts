/** A reader of Server-Sent Events that keeps all that came, and waits for what comes. */
import { type ClientRequest, type IncomingHttpHeaders, get } from 'node:http';
import { pause } from '../../src/cli/cluster.ts';

const PATIENCE_MS = 30_000;

export interface SentEvent {
  event: string;
  id: string;
  data: Record<string, any>;
}

export class EventStream {
  readonly events: SentEvent[] = [];
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
      this.events.push({
        event: field('event'),
        id: field('id'),
        data: JSON.parse(field('data')) as SentEvent['data'],
      });
    }
  }

  of(event: string): Array<SentEvent['data']> {
    return this.events.filter((one) => one.event === event).map(({ data }) => data);
  }

  /** Of those that came or come still, the first that satisfies. */
  async first(
    event: string,
    satisfies: (data: SentEvent['data']) => boolean,
    what: string,
  ): Promise<SentEvent['data']> {
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      const found = this.of(event).find(satisfies);
      if (found !== undefined) return found;
      if (performance.now() > endMs || this.ended) {
        throw new Error(
          `waited in vain for ${what}; ${this.ended ? 'ended; ' : ''}${JSON.stringify(this.events.slice(-40))}`,
        );
      }
      await pause(10);
    }
  }

  close(): void {
    this.request.destroy();
  }
}

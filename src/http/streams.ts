/**
 * Server-Sent Events to those who look: the cluster, this node's rates, what members lack, what happens.
 *
 * Guarantees: at most MAX_STREAMS; one that does not take what it is sent is ended; nothing is looked at while nobody is
 * connected; what is sent is the same for all, and made once.
 */
import type { ServerResponse } from 'node:http';
import type { Happening, Timeline } from '../node/timeline.ts';
import { type Dirty, behind, cleanOf, dirtyOf } from './dirty.ts';
import { type Counted, RateSampler } from './rates.ts';
import type { Look, SharedLook } from './shared-look.ts';

export const MAX_STREAMS = 32;
const MOST_UNTAKEN_BYTES = 1024 * 1024;
const LOOK_MS = 500;
const RATES_MS = 1000;
const DIRTY_MS = 500;
const ALIVE_MS = 15_000;
/** Happenings that a new stream begins with. */
const FIRST_HAPPENED = 200;

function line(event: string, data: object, id?: number): string {
  return `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}

/** The same as before, but for how long ago a node was heard of. */
function essence(look: Look): string {
  return JSON.stringify({ ...look, atMs: 0 }, (key, value: unknown) => (key === 'seenAgoMs' ? null : value));
}

const happenedLine = (happening: Happening): string => line('happened', happening, happening.id);

export class Streams {
  private readonly node: Counted & { readonly timeline: Timeline };
  private readonly look: SharedLook;
  private readonly streams: Set<ServerResponse> = new Set();
  private timers: NodeJS.Timeout[] = [];
  private rates: RateSampler | null = null;
  private endListening: () => void = () => {};
  private lastLook = '';
  private lastEssence = '';
  private lastRates = '';
  /** What was told to lack something, by volume and member. */
  private told: Map<string, Dirty> = new Map();

  constructor(node: Counted & { readonly timeline: Timeline }, look: SharedLook) {
    this.node = node;
    this.look = look;
  }

  get count(): number {
    return this.streams.size;
  }

  /** Its head is sent already. */
  add(stream: ServerResponse): void {
    this.streams.add(stream);
    stream.on('error', () => {});
    stream.on('close', () => this.remove(stream));
    if (this.streams.size === 1) this.begin();
    const { timeline } = this.node;
    const happened = timeline.after(timeline.newest - FIRST_HAPPENED).map(happenedLine);
    const dirty = [...this.told.values()].map((one) => line('dirty', one));
    this.send(stream, this.lastLook + this.lastRates + happened.join('') + dirty.join(''));
  }

  private remove(stream: ServerResponse): void {
    if (this.streams.delete(stream) && this.streams.size === 0) this.end();
  }

  private begin(): void {
    this.rates = new RateSampler(this.node);
    this.endListening = this.node.timeline.listen((happening) => this.sendAll(happenedLine(happening)));
    const every = (ms: number, work: () => void): void => void this.timers.push(setInterval(work, ms));
    every(LOOK_MS, () => void this.tellCluster());
    every(RATES_MS, () => this.sendAll((this.lastRates = line('rates', this.rates!.take()))));
    every(DIRTY_MS, () => this.tellDirty());
    every(ALIVE_MS, () => this.sendAll(': alive\n\n'));
    void this.tellCluster();
    this.tellDirty();
  }

  private end(): void {
    for (const timer of this.timers.splice(0)) clearInterval(timer);
    this.endListening();
    this.rates?.close();
    this.rates = null;
    // What is old by the time somebody comes is not told.
    this.lastLook = this.lastEssence = this.lastRates = '';
    this.told.clear();
  }

  private async tellCluster(): Promise<void> {
    const look = await this.look.get();
    const now = essence(look);
    if (now === this.lastEssence || this.streams.size === 0) return;
    this.lastEssence = now;
    this.lastLook = line('cluster', look);
    this.sendAll(this.lastLook);
  }

  private tellDirty(): void {
    const before = this.told;
    this.told = new Map();
    for (const hosted of this.node.hosted.values()) {
      for (const member of behind(hosted)) {
        const dirty = dirtyOf(hosted, member);
        if (dirty === null) continue;
        this.told.set(`${hosted.volumeId} ${member}`, dirty);
        this.sendAll(line('dirty', dirty));
      }
    }
    for (const [key, one] of before)
      if (!this.told.has(key) && this.isDone(one)) this.sendAll(line('dirty', cleanOf(one)));
  }

  /** Another primary would know better. */
  private isDone({ volumeId, member }: Dirty): boolean {
    const hosted = this.node.hosted.get(volumeId);
    return hosted?.isPrimary === true && hosted.register.known?.inSync.includes(member) === true;
  }

  private sendAll(text: string): void {
    for (const stream of this.streams) this.send(stream, text);
  }

  private send(stream: ServerResponse, text: string): void {
    if (text !== '') stream.write(text);
    if (stream.writableLength > MOST_UNTAKEN_BYTES) stream.destroy();
  }

  close(): void {
    for (const stream of this.streams) stream.end();
    this.streams.clear();
    this.end();
  }
}

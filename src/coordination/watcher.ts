/**
 * Follows one register.
 *
 * The stream of the server only says that something happened; what is told was read. So the order is that of the reads,
 * which are linearizable and one after another, and a stream that is late, repeats itself or has died unseen does no
 * harm: a read every few seconds finds what it missed, and then the stream is opened anew.
 */
import { CallFailure } from './http-call.ts';
import { pauseMs } from './endpoints.ts';
import { HoldfastError } from '../base/errors.ts';
import type { Register, Watch } from './register.ts';

export interface WatchSource {
  read: () => Promise<Register | null>;
  /** Settles when the stream is over. `poke` is to be called when it stands, and whenever something happened. */
  stream: (signal: AbortSignal, poke: () => void) => Promise<void>;
  changed: (register: Register) => void;
  /** How often it is read without being told to. */
  pollMs: number;
  /** Called once, at `close`. */
  closed: () => void;
}

export class Watcher implements Watch {
  private readonly source: WatchSource;
  private closed = false;
  private streaming: AbortController = new AbortController();
  private readonly poll: NodeJS.Timeout;
  private pause: { timer: NodeJS.Timeout; wake: () => void } | null = null;
  private told: Register | null = null;
  private reading = false;
  private wanted = false;
  private retry: NodeJS.Timeout | null = null;
  /** The read that is wanted or under way was asked for by the stream, not by the clock. */
  private poked = false;

  constructor(source: WatchSource) {
    this.source = source;
    this.poll = setInterval(() => void this.read(), source.pollMs);
    void this.follow();
    void this.read();
  }

  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.source.closed();
    clearInterval(this.poll);
    if (this.retry !== null) clearTimeout(this.retry);
    this.pause?.wake();
    this.streaming.abort();
  }

  private async follow(): Promise<void> {
    for (let attempt = 0; !this.closed; attempt++) {
      this.streaming = new AbortController();
      try {
        await this.source.stream(this.streaming.signal, () => {
          attempt = 0;
          this.poked = true;
          void this.read();
        });
      } catch (error) {
        if (!(error instanceof CallFailure) && !(error instanceof HoldfastError)) throw error;
      }
      if (this.closed) return;
      await new Promise<void>((wake) => (this.pause = { wake, timer: setTimeout(wake, pauseMs(attempt)) }));
      clearTimeout(this.pause!.timer);
      this.pause = null;
    }
  }

  private async read(): Promise<void> {
    this.wanted = true;
    if (this.reading) return;
    this.reading = true;
    try {
      for (let attempt = 0; this.wanted && !this.closed;) {
        this.wanted = false;
        const poked = this.poked;
        this.poked = false;
        try {
          this.tell(await this.source.read(), poked);
          attempt = 0;
        } catch (error) {
          if (!(error instanceof HoldfastError)) throw error;
          if (this.closed) return;
          this.wanted = true;
          this.poked ||= poked;
          await new Promise<void>((resolve) => (this.retry = setTimeout(resolve, pauseMs(attempt++))));
        }
      }
    } finally {
      this.reading = false;
    }
  }

  private tell(register: Register | null, poked: boolean): void {
    if (this.closed || register === null) return;
    const last = this.told;
    if (last !== null && last.registerId === register.registerId && last.version === register.version) return;
    this.told = register;
    // The clock found what the stream did not say.
    if (!poked && last !== null) this.streaming.abort();
    this.source.changed(register);
  }
}

/** Sessions without sockets, on a volume that answers when it is told to. */
import type { RespNode } from '../../src/resp/client-state.ts';
import { RESP_LIMITS, type RespLimits } from '../../src/resp/limits.ts';
import { ScanCursors } from '../../src/resp/scan-cursors.ts';
import { RespSession } from '../../src/resp/session.ts';
import { MemoryKv } from './memory-kv.ts';
import { type Tree, encodeCommand, readAll } from './resp-replies.ts';

/** Work that waits to be chosen. */
export class Later {
  readonly works: Array<() => void> = [];
  readonly add = (work: () => void): void => void this.works.push(work);

  run(index = 0): void {
    this.works.splice(index, 1)[0]!();
  }
}

export interface Told {
  session: RespSession;
  /** What was written, a write each. */
  writes: Buffer[];
  closed: boolean;
  pauses: boolean[];
  send: (...args: Array<string | Uint8Array>) => void;
  /** All replies so far; forgets them. */
  replies: () => Tree[];
}

export class RespBench {
  nowMs = 1_700_000_000_000;
  readonly later: Later = new Later();
  readonly kv: MemoryKv = new MemoryKv({ now: () => this.nowMs, later: this.later.add });
  readonly node: RespNode;
  private ids = 0;

  constructor(options: { password?: string | null; limits?: Partial<RespLimits>; replicas?: () => number } = {}) {
    this.node = {
      volume: () => this.kv,
      now: () => this.nowMs,
      password: options.password ?? null,
      serverInfo: {
        version: '0',
        redisVersion: '7.0.15',
        runId: '0'.repeat(40),
        processId: 1,
        tcpPort: 1,
        startedAtMs: 0,
      },
      scanCursors: new ScanCursors(0),
      limits: { ...RESP_LIMITS, ...options.limits },
      ...(options.replicas === undefined ? {} : { replicas: options.replicas }),
    };
  }

  open(): Told {
    const told: Told = {
      session: null as unknown as RespSession,
      writes: [],
      closed: false,
      pauses: [],
      send: (...args) => told.session.receive(encodeCommand(args)),
      replies: () => readAll(Buffer.concat(told.writes.splice(0))),
    };
    const peer = { id: ++this.ids, peer: 'test:1', local: 'test:2' };
    told.session = new RespSession(
      this.node,
      {
        write: (bytes) => void told.writes.push(bytes),
        soon: queueMicrotask,
        close: () => void (told.closed = true),
        pause: (paused) => void told.pauses.push(paused),
      },
      peer,
    );
    return told;
  }

  /** Lets the volume answer until it has nothing to answer, and what follows from that happen. */
  async settle(choose: (count: number) => number = () => 0): Promise<void> {
    await Promise.resolve();
    while (this.later.works.length > 0) {
      this.later.run(choose(this.later.works.length));
      await Promise.resolve();
    }
    await Promise.resolve();
  }
}

/**
 * Reads from all replicas that are in sync, and compares what they answer.
 *
 * Guarantees: no bytes are handed out on which not all have agreed that were in sync by the last LOCATE; a difference is
 * called one only when it was seen again by reads that began after all earlier ones had ended, each replica giving the
 * same bytes as before, and either nothing was committed meanwhile or it was seen so often that no writer explains it;
 * bytes under comparison, and reads that wait for their turn, are bounded.
 */
import { HoldfastError } from '../base/errors.ts';
import { BLOCK_BYTES, MiB } from '../base/units.ts';
import type { Call } from './call.ts';
import type { Members } from './members.ts';
import type { Settings } from './options.ts';
import type { ReadLink } from './read-link.ts';
import { type Reader, sameRead } from './read-policy.ts';

/** Of all replicas together it is so much times their number. */
const COMPARED_BYTES = 4 * MiB;
const COMPARED_CALLS = 256;
/** A writer that changes a block to and fro can look like a difference twice, but not so often in a row. */
const SURE_READS = 12;
/** A block that is written all the time is compared so often until two replicas are caught between the same writes. */
const MOST_READS = 100;
const SHOWN_BYTES = 16;

interface Answer {
  link: ReadLink;
  bytes: Uint8Array;
  error: HoldfastError | null;
}

export class ReadAll implements Reader {
  private readonly members: Members;
  private readonly settings: Settings;
  /** Replicas differ: the volume is not to be used any more. */
  private readonly diverged: (error: HoldfastError) => void;
  private readonly queue: Set<Call> = new Set();
  private readonly live: Set<Call> = new Set();
  private liveBytes = 0;
  private failure: HoldfastError | null = null;
  private closing = false;
  private idle: () => void = () => {};

  constructor(members: Members, settings: Settings, diverged: (error: HoldfastError) => void) {
    this.members = members;
    this.settings = settings;
    this.diverged = diverged;
  }

  submit(call: Call): void {
    const full = this.queue.size >= this.settings.maxQueued;
    const refusal = this.failure ?? (full ? this.error(call, 'BUSY', `${this.queue.size} reads wait`) : null);
    if (refusal !== null) return queueMicrotask(() => call.givenUp || call.done(refusal, null));
    this.queue.add(call);
    queueMicrotask(() => this.pump());
  }

  giveUp(call: Call): void {
    call.givenUp = true;
    this.queue.delete(call);
  }

  private pump(): void {
    for (const call of this.queue) {
      const fits = this.live.size < COMPARED_CALLS && this.liveBytes + call.lengthBytes <= COMPARED_BYTES;
      if (!fits && this.live.size > 0) return;
      this.queue.delete(call);
      this.live.add(call);
      this.liveBytes += call.lengthBytes;
      void this.read(call).then((error) => {
        this.live.delete(call);
        this.liveBytes -= call.lengthBytes;
        if (!call.givenUp) call.done(error, null);
        this.pump();
        if (this.live.size === 0) this.idle();
      });
    }
  }

  private error(call: Call | null, code: 'BUSY' | 'UNREACHABLE' | 'CLOSED', detail: string): HoldfastError {
    const { offsetBytes, lengthBytes } = call ?? {};
    return new HoldfastError(code, { operation: 'read', offsetBytes, lengthBytes, detail });
  }

  /** @returns null once the bytes are where they belong, or what stood in the way */
  private async read(call: Call): Promise<HoldfastError | null> {
    const endMs = performance.now() + this.settings.retryMs;
    for (;;) {
      if (this.failure !== null) return this.failure;
      if (call.givenUp) return null;
      const links = this.all();
      const outcome = links === null ? 'again' : await this.compare(call, links);
      if (outcome !== 'again') return outcome;
      if (this.closing) return this.error(call, 'CLOSED', 'the volume was closed');
      if (performance.now() >= endMs) return this.error(call, 'UNREACHABLE', this.missing());
      await this.members.refresh();
    }
  }

  /** A link to each that is in sync; null if one is missing. */
  private all(): ReadLink[] | null {
    const nodes = this.members.inSync;
    if (nodes === null || nodes.length === 0) return null;
    const links = nodes.map((node) => this.members.link(node)).filter((link) => link !== null);
    return links.length === nodes.length ? links : null;
  }

  private missing(): string {
    const nodes = this.members.inSync ?? [];
    const away = nodes.filter((node) => this.members.link(node) === null);
    const why = away.map((node) => `${node}: ${this.members.failures.get(node)?.message ?? 'no link'}`);
    return `not all of ${nodes.length} replicas that are in sync answered in time. ${why.join('; ')}`;
  }

  /** @returns `again`: somebody did not answer, or is not in sync any more */
  private async compare(call: Call, links: ReadLink[]): Promise<HoldfastError | null | 'again'> {
    let before: Answer[] | null = null;
    let committed: string | null = null;
    let same = 0;
    for (let reads = 0; reads < MOST_READS; reads++) {
      const answers = await Promise.all(links.map((link) => readOne(call, link)));
      const error = answers.find((answer) => answer.error !== null)?.error;
      if (error) return error.retryable ? 'again' : error;
      if (call.givenUp) return null;
      if (answers.every(({ bytes }) => equal(bytes, answers[0]!.bytes))) {
        call.destination!.set(answers[0]!.bytes);
        return null;
      }
      const repeated = before?.every(({ bytes }, i) => equal(bytes, answers[i]!.bytes)) ?? false;
      same = repeated ? same + 1 : 1;
      const now = await this.committed();
      const undisturbed = now !== null && now === committed;
      if (same >= SURE_READS || (repeated && undisturbed)) return this.stopIfInSync(call, answers);
      before = answers;
      committed = now;
    }
    return this.error(call, 'BUSY', `it was written while it was compared, ${MOST_READS} times`);
  }

  /** How far the primary has committed; null where it cannot be asked. */
  private async committed(): Promise<string | null> {
    const link = this.members.link(this.members.primary);
    const info = await link?.info(this.settings.suspectMs).catch(() => null);
    return info ? `${info.position.epoch}/${info.position.seq}` : null;
  }

  /** Who is not in sync any more may differ. */
  private async stopIfInSync(call: Call, answers: Answer[]): Promise<HoldfastError | 'again'> {
    await this.members.refresh();
    const links = this.all();
    if (links === null || answers.some(({ link }) => !links.includes(link))) return 'again';
    const [first, ...others] = answers.map(({ bytes }) => bytes);
    const at = first!.findIndex((byte, i) => others.some((bytes) => bytes[i] !== byte));
    const byte = call.offsetBytes + at;
    const shown = answers.map(({ link, bytes }) => {
      const hex = Buffer.from(bytes.subarray(at, at + SHOWN_BYTES)).toString('hex');
      return `${link.node} (${link.address}) has ${hex}`;
    });
    const failure = new HoldfastError('DIVERGED', {
      operation: 'read',
      offsetBytes: Math.floor(byte / BLOCK_BYTES) * BLOCK_BYTES,
      lengthBytes: BLOCK_BYTES,
      detail: `from byte ${byte} on ${shown.join(', ')}`,
      remedy: 'find out which replica is right before the volume is used any further',
    });
    this.failure ??= failure;
    this.diverged(this.failure);
    return this.failure;
  }

  async close(): Promise<void> {
    this.closing = true;
    if (this.live.size > 0) await new Promise<void>((resolve) => (this.idle = resolve));
    this.failure ??= this.error(null, 'CLOSED', 'the volume was closed');
    this.members.close();
  }
}

/** Into memory of its own: what is handed out was agreed on. */
function readOne(call: Call, link: ReadLink): Promise<Answer> {
  const bytes = new Uint8Array(call.lengthBytes);
  return new Promise((resolve) => {
    const inner = sameRead(call, bytes);
    inner.done = (error) => resolve({ link, bytes, error });
    link.submit(inner);
  });
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return Buffer.compare(a, b) === 0;
}

/**
 * One volume's register, as the replication core wants it: reads and attempts through the coordinator, by callback.
 *
 * Guarantees: at most one read under way; an attempt has exactly one outcome, and only a reply of the coordinator makes
 * it anything but unknown; addresses in the register are kept as they are in it; after `close` nothing is called back. That
 * the coordinator does not answer is said only when it was asked again, at once, and was late again.
 */
import { type HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { Coordinator, Register, Watch } from '../coordination/register.ts';
import type { CasOutcome, GroupRegister } from '../replication/group-register.ts';

export interface RegisterLinkParts {
  volumeId: string;
  node: string;
  bootId: string;
  /** Its calls have a short deadline. */
  quick: Coordinator;
  /** For the watch, which goes on for ever. */
  patient: Coordinator;
  /** A newer state than the one before, from wherever. */
  learned(register: GroupRegister): void;
  log(message: string, fields: object): void;
}

/** A call that was late, or lost: on a busy machine that may be one call only. */
const MAYBE_LATE = ['DEADLINE', 'UNREACHABLE', 'OUTCOME_UNKNOWN'];

/** Changes of this process, whatever the volume. */
let changes = 0;

export class RegisterLink {
  /** The newest that is known. */
  known: Register | null = null;
  /** The coordinator has said that there is none. */
  absent = false;
  /** Why the last call had no answer; null: it had one. */
  failure: HoldfastError | null = null;
  private readonly parts: RegisterLinkParts;
  private readonly watch: Watch;
  private reading = false;
  /** One call was late, and a read is to tell whether that is all. */
  private doubted = false;
  private closed = false;

  constructor(parts: RegisterLinkParts) {
    this.parts = parts;
    this.watch = parts.patient.watch(parts.volumeId, (register) => this.take(register));
  }

  /** The coordinator has answered. */
  private answered(): void {
    if (this.failure !== null && !this.closed) this.parts.log('the coordinator answers again', {});
    this.failure = null;
    this.doubted = false;
  }

  private take(register: Register): GroupRegister {
    this.answered();
    this.absent = false;
    const group = groupOf(register);
    if (this.known !== null && register.version < this.known.version) return group;
    this.known = register;
    if (!this.closed) this.parts.learned(group);
    return group;
  }

  private failed(error: unknown): void {
    const before = this.failure;
    const failure = asHoldfastError(error);
    if (before === null && !this.doubted && MAYBE_LATE.includes(failure.code)) {
      this.doubted = true;
      return this.read();
    }
    this.failure = failure;
    if (before === null && !this.closed) {
      this.parts.log('the coordinator does not answer', { reason: this.failure.message });
    }
  }

  read(): void {
    if (this.reading || this.closed) return;
    this.reading = true;
    this.parts.quick
      .read(this.parts.volumeId)
      .then(
        (register) => {
          if (register !== null) return void this.take(register);
          this.answered();
          this.absent = true;
        },
        (error: unknown) => this.failed(error),
      )
      .finally(() => {
        this.reading = false;
        if (this.doubted && this.failure === null) this.read();
      });
  }

  compareAndSet(expectedVersion: number, next: GroupRegister, settled: (outcome: CasOutcome) => void): void {
    const { known } = this;
    const once = (outcome: CasOutcome): void => {
      if (!this.closed) settled(outcome);
    };
    if (known === null) return queueMicrotask(() => once({ outcome: 'unknown' }));
    const { node, bootId, quick } = this.parts;
    const { epoch, primary, inSync } = next;
    const members = next.members.map(({ node: name, diskId }) => {
      const member = known.members.find((one) => one.node === name && one.diskId === diskId);
      return member ?? { node: name, diskId, address: '', clientAddress: '' };
    });
    const { version: _version, ...same } = known;
    const by = { node, bootId, n: ++changes };
    quick.compareAndSet(expectedVersion, { ...same, epoch, primary, inSync, members, by }).then(
      ({ outcome, register }) => {
        this.answered();
        if (this.known === null || register.version > this.known.version) this.known = register;
        once({ outcome, register: groupOf(register) });
      },
      (error: unknown) => {
        this.failed(error);
        once({ outcome: 'unknown' });
      },
    );
  }

  close(): void {
    this.closed = true;
    this.watch.close();
  }
}

export function groupOf({ registerId, version, epoch, primary, inSync, members, sizeBytes }: Register): GroupRegister {
  return {
    registerId,
    version,
    epoch,
    primary,
    inSync,
    members: members.map(({ node, diskId }) => ({ node, diskId })),
    sizeBytes,
  };
}

/**
 * Who may be primary of a volume: one register per volume, in a third place, changed only by compare-and-set.
 *
 * Guarantees that every implementation gives: reads and changes are linearizable; what was answered is durable;
 * versions of one register rise by 1 and never go back; of all changes of one version at most one takes effect. No clock
 * takes part in any of it.
 */
import { HoldfastError } from '../base/errors.ts';

/** One replica: a disk on a node. A disk that is formatted anew is another member. */
export interface Member {
  node: string;
  /** 32 hexadecimal digits. */
  diskId: string;
  /** host:port for the other nodes. */
  address: string;
  /** host:port for clients. */
  clientAddress: string;
}

export interface Register {
  /** 32 hexadecimal digits, drawn when the register is made: one that was removed and made again is another. */
  registerId: string;
  /** 32 hexadecimal digits. */
  volumeId: string;
  /** The volume's name. One name belongs to one volume. */
  volume: string;
  sizeBytes: number;
  /** 1, 2, 3... rises by 1 with each change. */
  version: number;
  epoch: number;
  /** A node of `inSync`; empty before the first. */
  primary: string;
  /** Nodes, at least one. */
  inSync: string[];
  members: Member[];
  /** Who made this version: `n` counts the changes of one process. */
  by: { node: string; bootId: string; n: number };
}

export type NewRegister = Omit<Register, 'registerId' | 'version'>;
export type NextRegister = Omit<Register, 'version'>;

/** `refused`: `register` is the one in force. */
export type CasResult = { outcome: 'done' | 'refused'; register: Register };

/** What a node tells of itself. For placement and `status`; nothing that must be safe rests on it. */
export interface NodeInfo {
  node: string;
  /** host:port for the other nodes. */
  address: string;
  /** host:port for clients. */
  clientAddress: string;
  freeBytes: number;
}

export interface SeenNode extends NodeInfo {
  /** Since its last word, by the coordinator's clock; in whole seconds with etcd. */
  seenAgoMs: number;
}

/** A node that was silent for so long is in the directory no more. */
export const NODE_TTL_MS = 60_000;

/**
 * Calls reject with a HoldfastError: UNREACHABLE when the request reached nobody; DEADLINE, OUTCOME_UNKNOWN; CLOSED;
 * ACCESS; INVALID_ARGUMENT for what can be no register; DAMAGED for one that was spoilt from outside.
 */
export interface Coordinator {
  /** Linearizable. null: no such register. */
  read(volumeId: string): Promise<Register | null>;
  /** Makes the register of a new volume. Rejects with EXISTS if the volume or its name has one. */
  create(register: NewRegister): Promise<Register>;
  /**
   * Replaces the register if its version is `expectedVersion` and its id that of `next`. NO_SUCH_VOLUME without one.
   * The outcome is known only from this reply: a rejected promise means that it may have taken effect, or still may
   * later. That is over as soon as a version other than the expected one is seen.
   */
  compareAndSet(expectedVersion: number, next: NextRegister): Promise<CasResult>;
  /** Rejects with BUSY if its version is another, with NO_SUCH_VOLUME if there is none. */
  remove(volumeId: string, expectedVersion: number): Promise<void>;
  list(): Promise<Register[]>;
  /**
   * Calls back with each newer state that it learns of, the present one first, and with the newest one eventually. It
   * goes on by itself after a lost connection. States in between may be left out; a removal is not told.
   */
  watch(volumeId: string, changed: (register: Register) => void): Watch;
  /** Says that this node is there; to be repeated well within NODE_TTL_MS. */
  announce(node: NodeInfo): Promise<void>;
  /** Those heard of within NODE_TTL_MS, in the order of their names. */
  nodes(): Promise<SeenNode[]>;
  /** Ends calls under way with CLOSED, and watches. */
  close(): Promise<void>;
}

export interface Watch {
  close(): void;
}

/**
 * The register that replaces `current`.
 * @returns null when it is refused: `current` is another version, or another register, than the caller means
 * @throws HoldfastError INVALID_ARGUMENT for a change that no node has reason to make
 */
export function successor(current: Register, expectedVersion: number, next: NextRegister): Register | null {
  if (current.version !== expectedVersion || current.registerId !== next.registerId) return null;
  const wrong = (detail: string): HoldfastError =>
    new HoldfastError('INVALID_ARGUMENT', { operation: 'change the register', volume: current.volume, detail });
  if (next.volumeId !== current.volumeId || next.volume !== current.volume) throw wrong('it names another volume');
  if (next.sizeBytes < current.sizeBytes)
    throw wrong(`${next.sizeBytes} bytes after ${current.sizeBytes}: volumes do not shrink`);
  if (next.epoch < current.epoch) throw wrong(`epoch ${next.epoch} after epoch ${current.epoch}`);
  // A pair (epoch, seq) names one content for ever, so one epoch has one primary.
  if (next.epoch === current.epoch && next.primary !== current.primary && next.primary !== '') {
    throw wrong(`a new primary, ${next.primary}, in the old epoch ${current.epoch}`);
  }
  return { ...next, version: current.version + 1 };
}

export function noSuchRegister(operation: string, volumeId: string): HoldfastError {
  return new HoldfastError('NO_SUCH_VOLUME', {
    operation,
    detail: `the coordinator has no register of the volume ${volumeId}`,
    remedy: 'if the volume was not deleted, the coordinator is the wrong one, or has lost its data',
  });
}

export function changedMeanwhile(operation: string, current: Register, expectedVersion: number): HoldfastError {
  return new HoldfastError('BUSY', {
    operation,
    volume: current.volume,
    detail: `the register is at version ${current.version}, not ${expectedVersion}`,
    remedy: 'read it again and decide anew',
  });
}

export function registerExists(volume: string, volumeId: string): HoldfastError {
  return new HoldfastError('EXISTS', {
    operation: 'create the register',
    volume,
    detail: `the volume ${volumeId}, or another of that name, has a register`,
    remedy: 'take another name, or delete that volume first',
  });
}

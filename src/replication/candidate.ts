/**
 * Whether and when a replica seeks promotion, and what it may promise to others meanwhile. Pure.
 *
 * Guarantees: promotion is sought only while the register has this replica in inSync, its disk is complete and is the
 * one that the register names, its promise has run out, and nothing was heard of the primary for the suspicion time;
 * while an attempt is undecided nothing is promised, and what became of it is found out before another one is made; a
 * register that cannot be this disk's is not acted upon.
 */
import { ORIGIN } from '../base/position.ts';
import type { BlockStore } from '../storage/block-store.ts';
import type { CrashPoint } from './crash-points.ts';
import { type CasOutcome, type GroupRegister, absentOf } from './group-register.ts';
import type { Rules, Times } from './rules.ts';

/** How often it is said that the register is strange. */
const STRANGE_MS = 10_000;

export interface CandidateParts {
  node: string;
  store: BlockStore;
  times: Times;
  rules: Rules;
  now(): number;
  random(): number;
  log(message: string, fields?: object): void;
  reached(point: CrashPoint): void;
  /** It follows nobody and is not primary. */
  isIdle(): boolean;
  readRegister(): void;
  compareAndSet(expectedVersion: number, next: GroupRegister): void;
  /** The register names this node primary of a new epoch. */
  won(register: GroupRegister): void;
}

export class Candidate {
  register: GroupRegister | null = null;
  private readonly o: CandidateParts;
  /** Until then no promotion is sought. */
  private promiseUntilMs: number;
  private heardAtMs: number;
  private patienceMs: number;
  /** An attempt is under way, against that version. */
  private seeking: number | null = null;
  /** An attempt against that version of the register had no answer: it may still take effect. */
  private undecidedVersion: number | null = null;
  private nextSeekMs = 0;
  /** Of the register without a primary that bitmaps were made for. */
  private vouchedVersion = 0;
  private distrusting = false;

  constructor(parts: CandidateParts) {
    this.o = parts;
    const { rules, times } = parts;
    const nowMs = parts.now();
    // What this process promised before it was started anew is not known: as if it had just done so.
    this.promiseUntilMs = rules.startUpWait ? nowMs + times.promiseMs : nowMs;
    this.heardAtMs = rules.startUpWait ? nowMs : -Infinity;
    this.patienceMs = this.drawPatience();
  }

  /** Two that suspect at the same time had better not ask at the same time. */
  private drawPatience(): number {
    return this.o.times.suspicionMs * (1 + this.o.random() / 4);
  }

  /** The primary was heard of. */
  heard(): void {
    this.heardAtMs = this.o.now();
    this.patienceMs = this.drawPatience();
  }

  /**
   * The stream of the primary ended, as it does at once when its process dies. If it lives it has this replica taken
   * out of inSync now, well before the promise has run out: there is nothing else to wait for.
   */
  lost(): void {
    this.patienceMs = Math.min(this.patienceMs, this.o.times.promiseMs * (1 + this.o.random() / 4));
  }

  /** It would seek promotion if the register lets it. */
  get isReady(): boolean {
    if (this.register?.inSync.includes(this.o.node) !== true || this.seeking !== null) return false;
    return this.isImpatient && this.o.now() >= this.promiseUntilMs;
  }

  get silentMs(): number {
    return this.o.now() - this.heardAtMs;
  }

  get isImpatient(): boolean {
    return this.silentMs > this.patienceMs;
  }

  get isUndecided(): boolean {
    return this.undecidedVersion !== null;
  }

  /** Seeks no promotion for the promise time from now. @returns false if nothing may be promised */
  promise(): boolean {
    const { rules, times } = this.o;
    if (rules.noPromiseWhileSeeking && (this.seeking !== null || this.undecidedVersion !== null)) return false;
    this.promiseUntilMs = Math.max(this.promiseUntilMs, this.o.now() + times.promiseMs);
    return true;
  }

  /** The primary gives the promises back: there is nothing to wait for. */
  release(): void {
    this.promiseUntilMs = -Infinity;
    this.heardAtMs = -Infinity;
  }

  /** The register as it is, read or watched. @returns false if a newer one is known */
  learn(register: GroupRegister): boolean {
    if (this.register !== null && register.version < this.register.version) return false;
    // A primary that is new gets the time to make itself heard.
    if (this.register !== null && register.epoch > this.register.epoch) this.heardAtMs = this.o.now();
    this.register = register;
    return true;
  }

  /** What is known of the register may call for something. */
  consider(): void {
    const { register, o } = this;
    if (register === null) return;
    if (this.undecidedVersion !== null && register.version > this.undecidedVersion) {
      this.undecidedVersion = null;
      // It did take effect, and nobody has changed the register since.
      if (o.isIdle() && register.primary === o.node && register.epoch > o.store.epoch) return this.won(register);
    }
    this.maybeSeek(register);
    this.maybeDecide(register);
  }

  private maybeSeek(register: GroupRegister): void {
    const { node, store, rules } = this.o;
    const nowMs = this.o.now();
    if (!this.o.isIdle() || this.seeking !== null || nowMs < this.nextSeekMs) return;
    if (nowMs - this.heardAtMs < this.patienceMs || nowMs < this.promiseUntilMs) return;
    const { inSync } = register;
    const own = register.members.find((member) => member.node === node);
    if (own?.diskId !== toHex(store.diskId)) return;
    if (rules.promoteInSyncOnly && (!inSync.includes(node) || store.replica.state !== 'in-sync')) return;
    // What others have written behind its end is not here; whoever looks at it is told (node/volume-size.ts).
    if (store.health !== 'good' || (register.sizeBytes ?? 0) > store.superblock.capacityBytes) return;
    const strange = strangeness(store, register.registerId, register.version, register.epoch);
    if (strange !== null) {
      this.nextSeekMs = nowMs + STRANGE_MS;
      return this.o.log('the register is not to be trusted', { reason: strange });
    }
    if (register.primary === '' && register.epoch > 0 && this.vouchedVersion !== register.version) {
      return this.distrust(register);
    }
    const stays = inSync.filter((one) => one === node || one !== register.primary);
    const next = { ...register, primary: node, inSync: stays.includes(node) ? stays : [...stays, node] };
    next.epoch = Math.max(register.epoch, store.epoch) + (rules.newEpoch ? 1 : 0);
    const why = { was: register.primary, silentMs: Math.round(nowMs - this.heardAtMs) };
    this.o.log('seeking promotion', { epoch: next.epoch, version: register.version, inSync: next.inSync, ...why });
    this.o.reached('promote:seek');
    this.seek(register.version, next);
  }

  private distrust(register: GroupRegister): void {
    if (this.distrusting) return;
    this.distrusting = true;
    const over = (): void => {
      this.distrusting = false;
    };
    this.vouchForNone(register)
      .then(() => {
        this.vouchedVersion = register.version;
      })
      .then(over, over);
  }

  /**
   * A register without a primary was made by force: what other members have may be of a history that was given up. Notes
   * durably that nothing is known of them.
   */
  private async vouchForNone(register: GroupRegister): Promise<void> {
    const { store } = this.o;
    const { peers } = store;
    const others = absentOf(register);
    for (const peer of peers.peers) if (!others.includes(peer)) peers.drop(peer);
    for (const peer of others) {
      peers.begin(peer, ORIGIN);
      peers.of(peer)?.bitmap.setAll();
    }
    await store.update({});
  }

  /** An attempt without an answer is decided by one more on the same version, with the content as it is. */
  private maybeDecide(register: GroupRegister): void {
    if (this.undecidedVersion === null || this.seeking !== null || this.o.now() < this.nextSeekMs) return;
    if (register.version === this.undecidedVersion) this.seek(register.version, register);
  }

  private seek(expectedVersion: number, next: GroupRegister): void {
    this.seeking = expectedVersion;
    this.o.compareAndSet(expectedVersion, next);
  }

  /** What became of the attempt under way. */
  settled(result: CasOutcome): void {
    if (this.seeking === null) return;
    const expectedVersion = this.seeking;
    this.seeking = null;
    if (result.outcome === 'unknown') {
      this.undecidedVersion = expectedVersion;
      this.nextSeekMs = this.o.now() + this.o.times.retryMs;
      return this.o.readRegister();
    }
    const { register } = result;
    this.undecidedVersion = null;
    // Whoever was faster gets the time to make itself heard.
    this.learn(register);
    if (register.primary === this.o.node && register.epoch > this.o.store.epoch) this.won(register);
  }

  private won(register: GroupRegister): void {
    this.o.log('promotion is won', { epoch: register.epoch, version: register.version });
    this.o.won(register);
  }
}

/** Why a register cannot be the one that this disk belongs to: nothing is done on its word then. Null: it can. */
export function strangeness(
  { replica, epoch: promised }: BlockStore,
  registerId: string,
  version: number,
  epoch: number,
): string | null {
  const own = toHex(replica.registerId);
  if (/[1-9a-f]/.test(own) && own !== registerId) return `its register is ${own}, not ${registerId}`;
  if (version < replica.registerVersion) return `the register was at version ${replica.registerVersion} before`;
  return epoch < promised ? `the register was at epoch ${promised} before` : null;
}

export function fromHex(text: string): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16) || 0);
}

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

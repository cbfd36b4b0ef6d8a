/**
 * The server's side of one RESP connection: bytes in, commands for the volume and replies out. It holds no socket: the
 * edge moves the bytes, and bounds those that go out (`hold`).
 *
 * Commands are begun as they come and answered in their order. Of one connection
 * - reads run beside reads, and writes beside writes: `execute` takes effect in the order of the calls;
 * - a write is begun when the reads before it are answered, so that they do not see it;
 * - a read behind writes that are under way becomes a part of their row: a transaction of `get` steps. What no
 *   transaction can hold (SCAN, DBSIZE) waits for them instead.
 *
 * Guarantees: every command is answered once, in order, by what was true between its begin and its answer, and not
 * before it is durable; commands under way, their bytes, replies that wait and bytes not yet read are bounded; whatever
 * bytes come, nothing throws. Replies of one turn are one write.
 */
import { HoldfastError, asHoldfastError } from '../base/errors.ts';
import type { StepResult } from '../kv/operations.ts';
import { type ClientState, type RespNode, forgetTransaction } from './client-state.ts';
import { findCommand, hasArity } from './command-table.ts';
import {
  type Args,
  type Command,
  type Plan,
  type ReadPlan,
  type RespVolume,
  type WritePlan,
  foundBy,
} from './command.ts';
import { NO_AUTH, execAbortedBy, failureOf, unknownCommand, unknownSubcommand, wrongArity } from './failures.ts';
import { ARGUMENT_BYTES } from './limits.ts';
import { type AnyReply, Failure } from './reply.ts';
import { ReplyWriter, type RespProtocol } from './reply-writer.ts';
import { RequestParser } from './request-parser.ts';
import { queue } from './transaction-commands.ts';

/** The edge, as the session sees it. No callback may throw; of the session they may call `hold` only. */
export interface RespSink {
  /** Bytes for the client, the sink's own, to be sent in this order. */
  write(bytes: Buffer): void;
  /** Calls it once, soon, and not from within: what is answered until then becomes one write. */
  soon(flush: () => void): void;
  /** All that is to be answered was written: the connection is to be closed when it is out. Called once. */
  close(): void;
  /** From now on the edge should, or should not, read from the socket. */
  pause(paused: boolean): void;
}

export interface RespPeer {
  /** Unlike that of any other connection of the node, ever. */
  id: number;
  /** `host:port` of the client, and of the server. */
  peer: string;
  local: string;
}

/** A command that was begun. */
interface Slot {
  protocol: RespProtocol;
  bytes: number;
  keys: number;
  /** What it answers, if others before it are not answered yet. */
  reply: Buffer | null;
}

/** A browser may be led to send commands in the body of its request: the request ends the connection before them. */
const isOfHttp = (word: Buffer): boolean => /^(?:post|host:)$/i.test(word.toString('latin1', 0, 6));

const keysIn = (plan: Plan): number =>
  plan.kind === 'read' ? plan.keys.length : plan.kind === 'write' ? plan.steps.length : 0;

/** So many replies are one write, whatever the turn. */
const WRITE_BYTES = 256 * 1024;
const HELD_SLAB_BYTES = 512;
/** A read of more keys does not become a transaction. */
const MAX_READ_STEPS = 256;

export class RespSession {
  readonly client: ClientState;
  private readonly node: RespNode;
  private readonly sink: RespSink;
  private readonly parser: RequestParser;
  private readonly writer: ReplyWriter = new ReplyWriter();
  /** Begun and not answered, in order, from `head` on. */
  private slots: Slot[] = [];
  private head = 0;
  private underWayBytes = 0;
  private underWayKeys = 0;
  private heldBytes = 0;
  private reads = 0;
  private writes = 0;
  /** A command is under way beside which no other may be. */
  private alone = false;
  /** What cannot be begun yet. */
  private waiting: { args: Args; command: Command; plan: Plan | null } | null = null;
  private held = false;
  private inputOver = false;
  private ended = false;
  private pumping = false;
  private flushing = false;
  private asked = false;

  constructor(node: RespNode, sink: RespSink, peer: RespPeer) {
    const nowMs = node.now();
    this.node = node;
    this.sink = sink;
    this.parser = new RequestParser(node.limits);
    this.parser.stranger = node.password !== null;
    this.client = {
      node,
      ...peer,
      connectedAtMs: nowMs,
      lastCommandAtMs: nowMs,
      lastCommand: 'NULL',
      protocol: 2,
      authenticated: node.password === null,
      name: '',
      library: '',
      libraryVersion: '',
      queued: null,
      queuedBytes: 0,
      broken: false,
      watched: new Map(),
      leaving: false,
    };
  }

  /** Takes bytes from the client; the chunk is the session's from now on. */
  receive(chunk: Buffer): void {
    if (this.ended || this.client.leaving) return;
    this.parser.push(chunk);
    this.pump();
  }

  /** Begins nothing as long as `held`: the client does not take its replies. */
  hold(held: boolean): void {
    this.held = held;
    if (!held) this.pump();
    else this.askForPause();
  }

  /** The client sends no more: when all that it sent is answered, the connection is closed. */
  finishInput(): void {
    this.inputOver = true;
    this.pump();
  }

  /** The node is going: what was begun is answered, then the connection is closed. */
  leave(): void {
    this.client.leaving = true;
    this.pump();
  }

  /** The connection is gone: the sink is not called again. */
  end(): void {
    this.ended = true;
    this.waiting = null;
    this.slots = [];
    this.head = 0;
    forgetTransaction(this.client);
    this.parser.stop();
  }

  /** The edge should not read. */
  get isPaused(): boolean {
    return this.asked;
  }

  /** Commands that were begun and not answered. */
  get underWay(): number {
    return this.slots.length - this.head;
  }

  /** The client owes bytes: it is in the middle of a request, or has not said who it is. For the edge's deadlines. */
  get unfinished(): boolean {
    return !this.ended && !this.client.leaving && (this.parser.midRequest || !this.client.authenticated);
  }

  /** Bytes that are kept for this connection, but for those of values under way in the volume. */
  get keptBytes(): number {
    return this.parser.keptBytes + this.underWayBytes + this.heldBytes + this.client.queuedBytes;
  }

  // --- beginning ------------------------------------------------------------------------------------------------------

  private pump(): void {
    if (this.pumping || this.ended) return;
    this.pumping = true;
    while (this.mayBegin()) {
      const { waiting } = this;
      if (waiting !== null) {
        this.waiting = null;
        if (!this.begin(waiting.args, waiting.command, waiting.plan)) break;
        continue;
      }
      const args = this.parser.next();
      if (args === null) {
        if (this.inputOver) this.client.leaving = true;
        break;
      }
      if (!this.look(args)) break;
    }
    this.pumping = false;
    const { problem } = this.parser;
    if (problem !== null && !this.client.leaving && this.waiting === null) {
      this.client.leaving = true;
      this.answer(this.open(0), new Failure(`ERR Protocol error: ${problem}`));
    }
    if (this.client.leaving) {
      this.parser.stop();
      this.flushSoon();
    }
    this.askForPause();
  }

  private mayBegin(): boolean {
    const { limits } = this.node;
    if (this.ended || this.client.leaving || this.held || this.alone) return false;
    if (this.underWay >= limits.maxUnderWay || this.heldBytes >= limits.maxHeldBytes) return false;
    return this.underWayBytes < limits.maxUnderWayBytes;
  }

  private askForPause(): void {
    const asked = !this.ended && this.parser.unreadBytes >= this.node.limits.pauseAtBytes;
    if (asked === this.asked) return;
    this.asked = asked;
    this.sink.pause(asked);
  }

  /** @returns false: no more can be begun now */
  private look(args: Args): boolean {
    const { client } = this;
    const command = findCommand(args);
    if (command === null && isOfHttp(args[0]!)) {
      client.leaving = true;
      return false;
    }
    const failure = this.refusal(args, command);
    if (failure !== null) {
      if (client.queued !== null) client.broken = true;
      const exec = command !== null && command !== 'subcommand' && command.name === 'exec';
      if (exec) forgetTransaction(client);
      this.answer(this.open(0), exec ? execAbortedBy(failure) : failure);
      return true;
    }
    const found = command as Command;
    client.lastCommand = found.name;
    client.lastCommandAtMs = this.node.now();
    if (client.queued !== null && found.immediate !== true) {
      this.answer(this.open(0), queue(client, found, args));
      return true;
    }
    return this.begin(args, found, null);
  }

  private refusal(args: Args, command: Command | 'subcommand' | null): Failure | null {
    if (command === null) return unknownCommand(args);
    if (command === 'subcommand') return unknownSubcommand(args[0]!.toString('latin1'), args[1]!);
    if (!hasArity(command, args)) return wrongArity(command.name);
    return this.client.authenticated || command.flags.includes('no_auth') ? null : NO_AUTH;
  }

  /** @returns false: it, or what follows, has to wait */
  private begin(args: Args, command: Command, planned: Plan | null): boolean {
    const { client } = this;
    if (command.afterAll === true && this.underWay > 0) {
      this.waiting = { args, command, plan: null };
      return false;
    }
    if (command.plan === undefined) {
      const slot = this.open(0);
      const reply = command.local!(args, client);
      // HELLO answers in the protocol that it chose, RESET in the one that it went back to.
      slot.protocol = client.protocol;
      this.parser.stranger = !client.authenticated;
      this.answer(slot, reply);
      return !client.leaving;
    }
    const plan = planned ?? command.plan(args, client);
    if (plan instanceof Failure) {
      this.answer(this.open(0), plan);
      return true;
    }
    if (this.mustWait(plan)) {
      this.waiting = { args, command, plan };
      return false;
    }
    let bytes = 0;
    for (const arg of args) bytes += arg.length + ARGUMENT_BYTES;
    this.perform(plan, this.open(bytes, keysIn(plan)));
    return true;
  }

  private mustWait(plan: Plan): boolean {
    // What they will be answered is not known, but for the number of values.
    const { underWayKeys } = this;
    if (underWayKeys > 0 && underWayKeys + keysIn(plan) > this.node.limits.maxUnderWayKeys) return true;
    if (plan.kind === 'read') return this.writes > 0 && plan.keys.length > MAX_READ_STEPS;
    if (plan.kind === 'write') return this.reads > 0;
    return plan.alone ? this.underWay > 0 : this.writes > 0;
  }

  private perform(plan: Plan, slot: Slot): void {
    let volume: RespVolume;
    try {
      volume = this.node.volume();
    } catch (error) {
      if (plan.kind === 'task') plan.failed?.();
      return this.answer(slot, failureOf(asHoldfastError(error)));
    }
    if (plan.kind === 'write') this.execute(volume, plan, slot);
    else if (plan.kind === 'read') this.read(volume, plan, slot);
    else {
      this.reads++;
      this.alone = plan.alone;
      plan.run(volume, (reply) => {
        this.reads--;
        if (plan.alone) this.alone = false;
        this.finish(slot, reply);
      });
    }
  }

  private read(volume: RespVolume, plan: ReadPlan, slot: Slot): void {
    if (this.writes > 0) {
      const steps = plan.keys.map((key) => ({ type: 'get', key }) as const);
      const reply = (results: StepResult[] | null): AnyReply => plan.reply(results!.map(foundBy));
      return this.execute(volume, { kind: 'write', conditions: [], steps, reply }, slot);
    }
    this.reads++;
    volume.get(plan.keys, (error, entries) => {
      this.reads--;
      this.finish(slot, error ?? plan.reply(entries!));
    });
  }

  private execute(volume: RespVolume, plan: WritePlan, slot: Slot): void {
    this.writes++;
    const { conditions, steps } = plan;
    volume.execute({ conditions, steps }, null, (error, result) => {
      this.writes--;
      this.finish(slot, error ?? plan.reply(result!.applied ? result!.results : null));
    });
  }

  // --- answering ------------------------------------------------------------------------------------------------------

  private open(bytes: number, keys = 0): Slot {
    const slot: Slot = { protocol: this.client.protocol, bytes, keys, reply: null };
    this.slots.push(slot);
    this.underWayKeys += keys;
    this.underWayBytes += bytes;
    return slot;
  }

  private finish(slot: Slot, reply: AnyReply | HoldfastError): void {
    if (this.ended) return;
    this.answer(slot, reply instanceof HoldfastError ? failureOf(reply) : reply);
    this.pump();
  }

  private answer(slot: Slot, reply: AnyReply): void {
    this.underWayBytes -= slot.bytes;
    this.underWayKeys -= slot.keys;
    if (this.slots[this.head] !== slot) {
      const apart = new ReplyWriter(HELD_SLAB_BYTES);
      apart.put(reply, slot.protocol);
      slot.reply = apart.take();
      this.heldBytes += slot.reply.length;
      return;
    }
    this.writer.put(reply, slot.protocol);
    this.head++;
    for (let next = this.slots[this.head]; next !== undefined && next.reply !== null; next = this.slots[this.head]) {
      this.heldBytes -= next.reply.length;
      this.writer.raw(next.reply);
      this.head++;
    }
    if (this.head === this.slots.length) {
      this.slots = [];
      this.head = 0;
    } else if (this.head >= 1024) {
      this.slots = this.slots.slice(this.head);
      this.head = 0;
    }
    if (this.writer.length >= WRITE_BYTES) this.sink.write(this.writer.take());
    else this.flushSoon();
  }

  private flushSoon(): void {
    if (this.flushing) return;
    this.flushing = true;
    this.sink.soon(this.flush);
  }

  private readonly flush = (): void => {
    this.flushing = false;
    if (this.ended) return;
    if (this.writer.length > 0) this.sink.write(this.writer.take());
    if (!this.client.leaving || this.underWay > 0) return;
    this.end();
    this.sink.close();
  };
}

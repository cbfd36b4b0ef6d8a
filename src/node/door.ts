/**
 * What a connection is before it is let in: HELLO, and AUTH where tokens are wanted. Nothing else is answered.
 *
 * Guarantees: no payload above MAX_UNKNOWN_BYTES is taken, and none at all that is not of these two; a token that is not
 * known is answered after WRONG_TOKEN_MS, in the same words as any other, and ends the connection, so that there is one
 * try for each; those that are not let in yet are bounded, the oldest gives way.
 */
import type { Socket } from 'node:net';
import { HoldfastError } from '../base/errors.ts';
import { WANTS_AUTH, decodeAuth } from '../protocol/auth.ts';
import type { FrameHeader } from '../protocol/frame.ts';
import { agree, decodeHello } from '../protocol/handshake.ts';
import { MESSAGES } from '../protocol/messages.ts';
import type { Connection } from './connection.ts';
import type { ConnectionHost } from './connection-host.ts';
import { GrantedHost } from './granted-host.ts';
import { certifiedOf } from './port-tls.ts';
import { helloReplyOf } from './questions.ts';
import type { Grant, Tokens } from './tokens.ts';
import type { Verdicts } from './verdicts.ts';

export const MAX_UNKNOWN_BYTES: number = 16 * 1024;
export const MAX_UNKNOWN = 64;
export const WRONG_TOKEN_MS = 1000;

/** Who says HELLO. */
export interface Session {
  session: bigint;
  generation: number;
  client: string;
}

/** The tokens of a port, and those who have not given one yet. */
export class Watchman {
  readonly tokens: Tokens;
  readonly verdicts: Verdicts;
  private readonly unknown: Set<Connection> = new Set();
  private readonly grants: Map<Connection, Grant> = new Map();

  constructor(tokens: Tokens, verdicts: Verdicts) {
    this.tokens = tokens;
    this.verdicts = verdicts;
    tokens.listen(() => this.review());
  }

  arrived(connection: Connection): void {
    this.unknown.add(connection);
    if (this.unknown.size <= MAX_UNKNOWN) return;
    const oldest = this.unknown.values().next().value!;
    this.unknown.delete(oldest);
    const detail = `more than ${MAX_UNKNOWN} connections are not let in yet`;
    oldest.goodbye(new HoldfastError('TOO_MANY', { operation: 'connect', detail }));
  }

  known(connection: Connection, grant: Grant | null): void {
    this.unknown.delete(connection);
    if (grant !== null) this.grants.set(connection, grant);
  }

  gone(connection: Connection): void {
    this.unknown.delete(connection);
    this.grants.delete(connection);
  }

  /** There are new tokens: whoever came with one that is none any more has to go. */
  private review(): void {
    for (const [connection, grant] of this.grants) {
      if (this.tokens.holds(grant)) continue;
      const detail = `the token "${grant.name}" was removed or changed`;
      connection.goodbye(new HoldfastError('ACCESS', { operation: 'serve', detail, remedy: 'use another token' }));
    }
  }
}

export interface DoorEvents {
  answer(requestId: number, type: number, payload: Uint8Array | null): void;
  fail(requestId: number, type: number, error: HoldfastError): void;
  goodbye(error: HoldfastError): void;
  /** It is let in, and goes on with that host. */
  enter(session: Session, host: ConnectionHost): void;
}

export class Door {
  private readonly host: ConnectionHost;
  private readonly connection: Connection;
  private readonly watchman: Watchman | null;
  private readonly on: DoorEvents;
  private hello: Session | null = null;
  private tried = false;

  constructor(host: ConnectionHost, connection: Connection, on: DoorEvents) {
    this.host = host;
    this.connection = connection;
    this.watchman = host.watchman ?? null;
    this.on = on;
  }

  /** Before a payload is received. */
  header({ type, payloadBytes }: FrameHeader): null {
    if (type !== MESSAGES.HELLO.number && type !== MESSAGES.AUTH.number) this.on.goodbye(this.stranger());
    else if (payloadBytes > MAX_UNKNOWN_BYTES) {
      const detail = `${payloadBytes} bytes of somebody who is not let in yet, at most ${MAX_UNKNOWN_BYTES}`;
      this.on.goodbye(new HoldfastError('TOO_LARGE', { operation: 'handshake', detail }));
    }
    return null;
  }

  /** What is said instead of HELLO or AUTH. */
  private stranger(): HoldfastError {
    if (this.hello === null) {
      return new HoldfastError('BAD_FRAME', { operation: 'serve', detail: 'the first message must be HELLO' });
    }
    const detail = 'this server wants a token first';
    const remedy = 'give one: --token-file FILE, or HOLDFAST_TOKEN';
    return new HoldfastError('ACCESS', { operation: 'serve', detail, remedy });
  }

  /** @throws HoldfastError BAD_FRAME */
  frame({ type, requestId }: FrameHeader, payload: Uint8Array | null, socket: Socket): void {
    if (type === MESSAGES.HELLO.number && this.hello === null) return this.sayHello(requestId, payload, socket);
    if (type === MESSAGES.AUTH.number && this.hello !== null && !this.tried)
      return this.authenticate(requestId, payload);
    if (type === MESSAGES.HELLO.number || this.tried) throw secondHello();
    const error = this.stranger();
    if (error.code === 'BAD_FRAME') throw error;
    this.on.fail(requestId, type, error);
    this.on.goodbye(error);
  }

  private sayHello(requestId: number, payload: Uint8Array | null, socket: Socket): void {
    const h = decodeHello(payload);
    const { HELLO } = MESSAGES;
    let version: number;
    try {
      version = agree(h);
    } catch (error) {
      this.on.fail(requestId, HELLO.number, error as HoldfastError);
      return this.on.goodbye(error as HoldfastError);
    }
    this.hello = { session: h.session, generation: h.generation, client: h.client };
    // A node, and an operator, is known by its certificate.
    const who = certifiedOf(socket);
    const known = who !== null && (who.node !== null || who.admin);
    const wanted = this.watchman !== null && !known;
    if (!wanted) {
      const { client } = h;
      // TLS has said it already.
      if (!('encrypted' in socket)) this.host.verdicts?.tell('info', 'let in', { peer: this.connection.peer, client });
      this.enter(null);
    }
    this.on.answer(requestId, HELLO.number, helloReplyOf(this.host, version, wanted ? WANTS_AUTH : 0n));
  }

  private authenticate(requestId: number, payload: Uint8Array | null): void {
    const secret = decodeAuth(payload);
    const { tokens, verdicts } = this.watchman!;
    const { peer } = this.connection;
    const { client } = this.hello!;
    const grant = tokens.find(secret);
    this.tried = true;
    if (grant !== null) {
      const { name: token, role } = grant;
      verdicts.tell('info', 'let in by a token', { peer, client, token, role });
      this.enter(grant);
      return this.on.answer(requestId, MESSAGES.AUTH.number, null);
    }
    verdicts.tell('warn', 'refused: the token', { peer, client });
    setTimeout(() => {
      const error = new HoldfastError('ACCESS', {
        operation: 'AUTH',
        detail: 'this server does not take that token',
        remedy: 'see that it was made for this server, and not removed: holdfast token list',
      });
      this.on.fail(requestId, MESSAGES.AUTH.number, error);
      this.on.goodbye(error);
    }, WRONG_TOKEN_MS).unref();
  }

  private enter(grant: Grant | null): void {
    this.watchman?.known(this.connection, grant);
    this.on.enter(this.hello!, grant === null ? this.host : new GrantedHost(this.host, grant));
  }
}

export function secondHello(): HoldfastError {
  return new HoldfastError('BAD_FRAME', { operation: 'HELLO', detail: 'a second HELLO, or a second AUTH' });
}

/**
 * What a caller of `connect` may choose, and what follows where nothing was chosen.
 */
import { HoldfastError } from '../base/errors.ts';
import { MiB } from '../base/units.ts';
import { type CredentialOptions, Credentials } from './credentials.ts';

/** What a caller may be told of a volume's connections, as a whole. Called between requests; they must not throw. */
export interface ConnectEvents {
  /** The first connection is lost, all were there; requests wait, or go over those that are left. */
  lost?(error: HoldfastError): void;
  /** All connections are there again, so many milliseconds after the first was lost. */
  back?(awayMs: number): void;
  /**
   * Requests that waited are about to fail, because `retryMs` is over, or `forGood`, because of an answer that will be
   * the same next time. Told once until the server is back.
   */
  gaveUp?(error: HoldfastError, forGood: boolean): void;
  /** The primary is at another address than before, and took over so many milliseconds after it was lost. */
  moved?(from: string, to: string, awayMs: number): void;
}

export interface ConnectOptions extends CredentialOptions {
  /** TCP connections, each a session of its own. Default 1, at most 64. */
  connections?: number | undefined;
  /** How long the first connection is tried for before `connect` rejects. Default 5 s. */
  connectMs?: number | undefined;
  /**
   * How long a lost connection is tried to be replaced before the calls that wait for it fail (mutations with
   * OUTCOME_UNKNOWN, others with UNREACHABLE). The next call tries again. Default 60 s; Infinity: without end.
   */
  retryMs?: number | undefined;
  /** A connection that owes replies and is silent for so long is asked with PING; silent again: replaced. Default 10 s. */
  idleTimeoutMs?: number | undefined;
  /**
   * A connection that owes replies and is silent for so long makes the client ask another node whether there is another
   * primary. With reads `any`: a node that owes a read for so long is left, and what it owes is read from the primary.
   * Default 500 ms.
   */
  suspectMs?: number | undefined;
  /**
   * Who answers reads: the primary; any replica that is in sync; or all that are in sync, whose answers are compared.
   * Default `primary`.
   */
  reads?: 'primary' | 'any' | 'all' | undefined;
  /** How long the server may take for HELLO and ATTACH, each. Default 10 s. */
  handshakeTimeoutMs?: number | undefined;
  /** Bytes in flight per connection; the server's limit counts too. Default 16 MiB. */
  maxInFlightBytes?: number | undefined;
  /** Requests in flight per connection; the server's limit counts too. Default 1024. */
  maxInFlightRequests?: number | undefined;
  /** Calls that may wait for their turn, per connection; more are refused with BUSY. Default 16384. */
  maxQueued?: number | undefined;
  /** Name of this program, for the server's log. */
  clientName?: string | undefined;
  events?: ConnectEvents | undefined;
}

type Choices = Omit<ConnectOptions, keyof CredentialOptions>;
export type Settings = { readonly [K in keyof Choices]-?: NonNullable<Choices[K]> } & {
  readonly credentials: Credentials;
};

const DEFAULTS: Omit<Settings, 'credentials'> = {
  connections: 1,
  connectMs: 5_000,
  retryMs: 60_000,
  idleTimeoutMs: 10_000,
  suspectMs: 500,
  reads: 'primary',
  handshakeTimeoutMs: 10_000,
  maxInFlightBytes: 16 * MiB,
  maxInFlightRequests: 1024,
  maxQueued: 16_384,
  clientName: 'holdfast client',
  events: {},
};

/** Longest time that a timer of Node can wait, about 24 days. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** @param secure the address says TLS. @throws HoldfastError INVALID_ARGUMENT */
export function settingsOf(options: ConnectOptions, secure = false): Settings {
  const { tls, token, tokenFile, ...others } = options;
  const chosen = Object.fromEntries(Object.entries(others).filter(([, value]) => value !== undefined));
  const credentials = new Credentials({ tls, token, tokenFile }, secure);
  const settings: Settings = { ...DEFAULTS, ...chosen, credentials };
  const check = (name: Exclude<keyof Choices, 'events' | 'reads'>, least: number, most: number): void => {
    const value = settings[name];
    if (typeof value === 'number' && value >= least && value <= most) return;
    throw new HoldfastError('INVALID_ARGUMENT', {
      operation: 'connect',
      detail: `${name} is ${String(value)}, it must lie between ${least} and ${most}`,
    });
  };
  check('connections', 1, 64);
  check('connectMs', 0, MAX_TIMER_MS);
  check('retryMs', 0, Infinity);
  check('idleTimeoutMs', 1, MAX_TIMER_MS);
  check('suspectMs', 1, MAX_TIMER_MS);
  check('handshakeTimeoutMs', 1, MAX_TIMER_MS);
  check('maxInFlightBytes', 1, Number.MAX_SAFE_INTEGER);
  check('maxInFlightRequests', 1, 1_000_000);
  check('maxQueued', 1, 10_000_000);
  if (!['primary', 'any', 'all'].includes(settings.reads)) {
    const detail = `reads is "${settings.reads}", it must be primary, any or all`;
    throw new HoldfastError('INVALID_ARGUMENT', { operation: 'connect', detail });
  }
  return settings;
}

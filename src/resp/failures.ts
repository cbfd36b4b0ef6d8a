/** Errors in the words that Redis uses: clients compare them. */
import type { ErrorCode, HoldfastError } from '../base/errors.ts';
import { Failure } from './reply.ts';

export const SYNTAX = new Failure('ERR syntax error');
export const NOT_AN_INTEGER = new Failure('ERR value is not an integer or out of range');
export const OVERFLOW = new Failure('ERR increment or decrement would overflow');
export const NO_AUTH = new Failure('NOAUTH Authentication required.');
export const WRONG_PASSWORD = new Failure('WRONGPASS invalid username-password pair or user is disabled.');
export const INVALID_CURSOR = new Failure('ERR invalid cursor');
export const EXEC_ABORTED = new Failure('EXECABORT Transaction discarded because of previous errors.');

export const execAbortedBy = ({ text }: Failure): Failure =>
  new Failure(`EXECABORT Transaction discarded because of: ${text.replace(/^ERR /, '')}`);

export const wrongArity = (name: string): Failure => new Failure(`ERR wrong number of arguments for '${name}' command`);
export const invalidExpiry = (name: string): Failure => new Failure(`ERR invalid expire time in '${name}' command`);

/** The first bytes of a word that a client wrote, as C prints them. */
const printed = (word: Buffer, most: number): string => {
  const end = word.indexOf(0);
  return word.toString('latin1', 0, Math.min(end < 0 ? word.length : end, most));
};

const SHOWN_BYTES = 128;

export function unknownCommand(args: readonly Buffer[]): Failure {
  let shown = '';
  for (let i = 1; i < args.length && shown.length < SHOWN_BYTES; i++) {
    shown += `'${printed(args[i]!, SHOWN_BYTES - shown.length)}' `;
  }
  return new Failure(`ERR unknown command '${printed(args[0]!, SHOWN_BYTES)}', with args beginning with: ${shown}`);
}

export const unknownSubcommand = (container: string, name: Buffer): Failure =>
  new Failure(`ERR unknown subcommand '${printed(name, SHOWN_BYTES)}'. Try ${container.toUpperCase()} HELP.`);

/** Clients ask again after TRYAGAIN, by themselves or by their user; after UNKNOWN they must look first. */
const CODES: Partial<Record<ErrorCode, string>> = {
  NOT_PRIMARY: 'TRYAGAIN',
  BUSY: 'TRYAGAIN',
  WRONG_EPOCH: 'TRYAGAIN',
  SHUTTING_DOWN: 'TRYAGAIN',
  UNREACHABLE: 'TRYAGAIN',
  OUTCOME_UNKNOWN: 'UNKNOWN',
  // Sent without a number under which it could be repeated.
  CONNECTION_LOST: 'UNKNOWN',
  DEADLINE: 'UNKNOWN',
  READ_ONLY: 'READONLY',
};

export function failureOf(error: HoldfastError): Failure {
  const message = Buffer.from(error.message).toString('latin1');
  if (error.code === 'NO_SPACE') return new Failure(`OOM command not allowed: ${message}`);
  return new Failure(`${CODES[error.code] ?? 'ERR'} ${message}`);
}

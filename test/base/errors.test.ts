/** The table of errors and what is made of it. */
import { constants } from 'node:os';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ERRORS, type ErrorCode, HoldfastError, asHoldfastError, codeOfStatus } from '../../src/base/errors.ts';

const errors = suite('errors');

/** Permanent numbers: a change here breaks every client that is out there. */
const NUMBERS: Record<ErrorCode, number> = {
  INVALID_ARGUMENT: 1,
  OUT_OF_RANGE: 2,
  TOO_LARGE: 3,
  READ_ONLY: 4,
  NO_SUCH_VOLUME: 5,
  NOT_ATTACHED: 6,
  WRONG_VERSION: 7,
  BAD_FRAME: 8,
  UNSUPPORTED: 9,
  CORRUPT_BLOCK: 10,
  IO_ERROR: 11,
  POISONED: 12,
  DAMAGED: 13,
  NO_SPACE: 14,
  WRONG_EPOCH: 15,
  STALE_GENERATION: 16,
  OUTCOME_UNKNOWN: 17,
  DEADLINE: 18,
  SHUTTING_DOWN: 19,
  TOO_MANY: 20,
  NOT_PRIMARY: 21,
  BUSY: 22,
  EXISTS: 23,
  LOCKED: 40,
  NOT_A_VOLUME: 42,
  CONNECTION_LOST: 43,
  ABORTED: 44,
  CLOSED: 45,
  UNREACHABLE: 46,
  ACCESS: 47,
  WORKER_LOST: 48,
  DIVERGED: 49,
};

errors('numbers are those that were given out, and no two alike', () => {
  for (const [code, status] of Object.entries(NUMBERS)) {
    assert.is(ERRORS[code as ErrorCode].status, status, code);
    assert.is(codeOfStatus(status), code);
  }
  const statuses = Object.values(ERRORS).map((row) => row.status);
  assert.is(new Set(statuses).size, statuses.length);
  assert.ok(
    statuses.every((status) => status >= 1 && status <= 0xffff),
    '0 means success',
  );
});

/** Errnos of Linux that Node's table lacks. */
const NOT_IN_NODE = ['EUCLEAN', 'ESHUTDOWN'];

errors('every errno is one that the system knows, and of NBD only its own numbers are used', () => {
  // NBD: EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN.
  const nbd = [1, 5, 12, 22, 28, 75, 95, 108];
  for (const [code, row] of Object.entries(ERRORS)) {
    assert.ok(row.errno in constants.errno || NOT_IN_NODE.includes(row.errno), `${code}: ${row.errno}`);
    assert.ok(nbd.includes(row.nbd), `${code}: ${row.nbd}`);
  }
});

errors('what may have been executed, or will fail again, is not repeated by itself', () => {
  const never: ErrorCode[] = ['INVALID_ARGUMENT', 'OUT_OF_RANGE', 'READ_ONLY', 'CORRUPT_BLOCK', 'POISONED', 'DAMAGED'];
  never.push('OUTCOME_UNKNOWN', 'STALE_GENERATION', 'DEADLINE', 'ABORTED', 'NO_SPACE', 'BAD_FRAME');
  for (const code of never) assert.not.ok(new HoldfastError(code).retryable, code);
  for (const code of ['CONNECTION_LOST', 'NOT_PRIMARY', 'BUSY', 'SHUTTING_DOWN'] as const) {
    assert.ok(new HoldfastError(code).retryable, code);
  }
});

errors('unknown statuses of a newer server are I/O errors', () => {
  for (const status of [0, 24, 39, 1000, -1, NaN]) assert.is(codeOfStatus(status), 'IO_ERROR');
});

errors('the message says what, where and what to do', () => {
  const cause = new Error('below');
  const error = new HoldfastError('CORRUPT_BLOCK', {
    operation: 'read',
    volume: 'v',
    offsetBytes: 0,
    lengthBytes: 4096,
    peer: 'p:1',
    detail: 'block 0',
    remedy: 'overwrite it',
    cause,
  });
  assert.is(
    error.message,
    'read at offset 0 length 4096 on volume v (peer p:1): the block does not match its checksum (EIO): block 0. To remedy: overwrite it',
  );
  assert.is(error.cause, cause);
  assert.is(error.name, 'HoldfastError');
  assert.is(error.errno, 'EIO');
  assert.is(error.nbdError, 5);
  assert.is(error.status, 10);
  assert.ok(error instanceof Error);
  const bare = new HoldfastError('CLOSED');
  assert.is(bare.message, 'the device is closed (EBADF)');
  assert.not.ok('cause' in bare, 'no cause is not a cause of undefined');
});

errors('as JSON: everything a program needs, and not the cause', () => {
  const error = new HoldfastError('NO_SPACE', { operation: 'create', volume: 'v', cause: { secret: 1n } });
  const json = JSON.parse(JSON.stringify(error)) as Record<string, unknown>;
  assert.equal(json, {
    code: 'NO_SPACE',
    errno: 'ENOSPC',
    retryable: false,
    message: error.message,
    operation: 'create',
    volume: 'v',
  });
});

errors('what the system throws becomes an error of the table', () => {
  const thrown = (code: string): Error => Object.assign(new Error(`${code}: it said`), { code });
  const expected: Array<[string, ErrorCode]> = [
    ['ENOSPC', 'NO_SPACE'],
    ['EDQUOT', 'NO_SPACE'],
    ['EACCES', 'ACCESS'],
    ['EPERM', 'ACCESS'],
    ['EROFS', 'READ_ONLY'],
    ['EEXIST', 'EXISTS'],
    ['EIO', 'IO_ERROR'],
    ['ENOENT', 'IO_ERROR'],
  ];
  for (const [errno, code] of expected) {
    const original = thrown(errno);
    const error = asHoldfastError(original, { operation: 'open' });
    assert.is(error.code, code, errno);
    assert.is(error.cause, original);
    assert.match(error.message, `${errno}: it said`);
    assert.match(error.message, /^open: /);
  }
});

errors('one of ours stays itself, and anything at all may be thrown', () => {
  const own = new HoldfastError('LOCKED', { detail: 'as it was' });
  assert.is(asHoldfastError(own, { operation: 'other' }), own);
  for (const odd of [null, undefined, 'text', 7, {}, []]) assert.is(asHoldfastError(odd).code, 'IO_ERROR');
  assert.match(asHoldfastError('text').message, /text/);
});

errors.run();

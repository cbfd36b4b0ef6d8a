import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Call } from '../../src/client/call.ts';
import { InFlight } from '../../src/client/in-flight.ts';
import { FIRST_FREE_ID, MESSAGES, SESSION_WINDOW } from '../../src/protocol/messages.ts';

const range = { offsetBytes: 0, lengthBytes: 10 };
const zero = (): Call => new Call(MESSAGES.ZERO.number, range);
const read = (): Call => new Call(MESSAGES.READ.number, range, { destination: new Uint8Array(10) });

function inFlight(requests: number, bytes: number): InFlight {
  const one = new InFlight();
  one.limits = { requests, bytes, window: SESSION_WINDOW };
  return one;
}

test('mutations are numbered from 1, others apart from them', () => {
  const one = inFlight(10, 1000);
  const calls = [zero(), read(), zero(), read()];
  for (const call of calls) one.add(call);
  assert.equal(
    calls.map((c) => c.requestId),
    [1, FIRST_FREE_ID, 2, FIRST_FREE_ID + 1],
  );
  assert.equal(
    one.inOrder().map((c) => c.requestId),
    [1, 2, FIRST_FREE_ID, FIRST_FREE_ID + 1],
  );
});

test('the window: 1024 mutations above the lowest unanswered one, however many were answered above it', () => {
  const one = inFlight(10_000, 1000);
  const first = zero();
  one.add(first);
  for (let n = 2; n <= SESSION_WINDOW; n++) {
    const call = zero();
    assert.ok(one.admits(call));
    one.add(call);
    one.remove(call);
  }
  assert.is(one.size, 1);
  assert.not(one.admits(zero()));
  assert.ok(one.admits(read()), 'reads are not bound by it');
  one.remove(first);
  assert.ok(one.admits(zero()));
});

test('requests and bytes are bounded, but one request always passes', () => {
  const one = inFlight(2, 15);
  const first = read();
  one.add(first);
  assert.not(one.admits(read()), '20 bytes');
  assert.ok(one.admits(zero()));
  one.add(zero());
  assert.not(one.admits(zero()), 'three requests');
  const narrow = inFlight(2, 5);
  assert.ok(narrow.admits(read()));
});

test.run();

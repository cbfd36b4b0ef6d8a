import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { HoldfastError } from '../../src/base/errors.ts';
import { formatAddress, parseVolumeAddress } from '../../src/client/address.ts';
import { settingsOf } from '../../src/client/options.ts';
import { backoffMs } from '../../src/client/retry.ts';

test('addresses of volumes', () => {
  const one = (url: string): string => {
    const { servers, volume } = parseVolumeAddress(url);
    return `${servers.map(formatAddress).join(' ')} | ${volume}`;
  };
  assert.is(one('holdfast://127.0.0.1:7401/demo'), '127.0.0.1:7401 | demo');
  assert.is(one('holdfast://a,b:1,[::1]:2/x'), 'a:7401 b:1 [::1]:2 | x');
  assert.is(one('holdfast://h:1'), 'h:1 | ');
  assert.is(one('holdfast://h:1/'), 'h:1 | ');
  assert.is(one('holdfast://h/a%20b%2Fc'), 'h:7401 | a b/c');
});

for (const url of [
  '',
  'demo',
  'http://h:1/v',
  'holdfast://',
  'holdfast:///v',
  'holdfast://h:0/v',
  'holdfast://h:65536/v',
  'holdfast://h:x/v',
  'holdfast://h:1,/v',
  'holdfast://::1/v',
  'holdfast://user@h/v',
  'holdfast://h/v/w',
  'holdfast://h/%zz',
  'holdfast://h/v?x=1',
]) {
  test(`refused as an address: "${url}"`, () => {
    assert.throws(
      () => parseVolumeAddress(url),
      (e: HoldfastError) => e.code === 'INVALID_ARGUMENT',
    );
  });
}

test('settings out of their range are refused, undefined ones have their default', () => {
  assert.is(settingsOf({ retryMs: undefined, connections: 3 }).retryMs, 60_000);
  for (const options of [{ connections: 0 }, { connections: NaN }, { retryMs: -1 }, { idleTimeoutMs: Infinity }]) {
    assert.throws(
      () => settingsOf(options),
      (e: HoldfastError) => e.code === 'INVALID_ARGUMENT',
      JSON.stringify(options),
    );
  }
});

test('delays: full jitter, from 20 to 200 ms at first, growing to 2 s', () => {
  assert.is(backoffMs(0, 0), 20);
  assert.is(backoffMs(0, 1), 200);
  assert.is(backoffMs(1, 1), 400);
  assert.is(backoffMs(9, 0), 20);
  assert.is(backoffMs(9, 1), 2000);
  assert.is(backoffMs(100_000, 1), 2000);
});

test.run();

/** What is said of an etcd that answers, and speaks no JSON: etcd 3.4 with a config file leaves its gateway off. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { refuseErrors } from '../../src/coordination/etcd-wire.ts';

const test = suite('etcd, without its JSON gateway');

function remedyOf(status: number, body: unknown): string | undefined {
  try {
    refuseErrors({ status, body }, 'list');
  } catch (error) {
    assert.instance(error, HoldfastError);
    return (error as HoldfastError).details.remedy;
  }
  throw new Error('it was taken');
}

test('the error says how to turn it on', () => {
  for (const body of [null, undefined, '404 page not found']) {
    assert.match(remedyOf(404, body) ?? '', /enable-grpc-gateway: true/);
  }
});

test('a certificate with a CN, refused in plain text where there are users: what etcd says, and which one it takes', () => {
  const text = 'CommonName of client sending a request against gateway will be ignored and not used as expected';
  try {
    refuseErrors({ status: 400, body: undefined, text }, 'list');
    assert.unreachable();
  } catch (error) {
    assert.instance(error, HoldfastError);
    const { code, details } = error as HoldfastError;
    assert.is(code, 'ACCESS');
    assert.match(details.detail ?? '', text);
    assert.match(details.remedy ?? '', /has no CN/);
  }
});

test('other errors keep theirs', () => {
  assert.is(remedyOf(404, { code: 5, message: 'etcdserver: not found' }), undefined);
  assert.match(remedyOf(403, { code: 7, message: 'permission denied' }) ?? '', /name and password/);
});

test.run();

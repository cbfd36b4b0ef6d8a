/** The form of registers, addresses of coordinators, and the rules of a change. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import {
  MAX_MEMBERS,
  MAX_REGISTER_BYTES,
  checkNodeInfo,
  checkRegister,
  given,
} from '../../src/coordination/check-register.ts';
import { NodeDirectory } from '../../src/coordination/node-directory.ts';
import { openCoordinator } from '../../src/coordination/open.ts';
import { NODE_TTL_MS, type Register, successor } from '../../src/coordination/register.ts';

const checks = suite('coordination: checks');

const hex = (digit: string): string => digit.repeat(32);
const member = (node: string): Register['members'][number] => ({
  node,
  diskId: hex('d'),
  address: '10.0.0.1:7441',
  clientAddress: '[fe80::1]:7401',
});
const good: Register = {
  registerId: hex('1'),
  volumeId: hex('a'),
  volume: 'vm-1.disk',
  sizeBytes: 4096,
  version: 1,
  epoch: 0,
  primary: '',
  inSync: ['a'],
  members: [member('a'), member('b')],
  by: { node: 'a', bootId: 'x', n: 0 },
};

function refusal(work: () => unknown): HoldfastError {
  try {
    work();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error('not refused');
}

checks('a good register comes out as it went in, without what is no field of it', () => {
  assert.equal(checkRegister(good, given('test')), good);
  const more = { ...good, x: 1, by: { ...good.by, x: 1 }, members: good.members.map((each) => ({ ...each, x: 1 })) };
  assert.equal(checkRegister(JSON.parse(JSON.stringify(more)), given('test')), good);
});

checks('each field is looked at, and named', () => {
  const wrong: Array<[object, string]> = [
    [{ registerId: hex('1').slice(1) }, 'registerId'],
    [{ registerId: hex('G') }, 'registerId'],
    [{ volumeId: 7 }, 'volumeId'],
    [{ volumeId: `${hex('a')}\n` }, 'volumeId'],
    [{ volume: '../x' }, 'volume'],
    [{ volume: '' }, 'volume'],
    [{ volume: 'x'.repeat(129) }, 'volume'],
    [{ sizeBytes: 4097 }, 'sizeBytes'],
    [{ sizeBytes: 0 }, 'sizeBytes'],
    [{ sizeBytes: 2 ** 60 }, 'sizeBytes'],
    [{ version: 0 }, 'version'],
    [{ version: 1.5 }, 'version'],
    [{ version: 2 ** 53 }, 'version'],
    [{ epoch: -1 }, 'epoch'],
    [{ epoch: '1' }, 'epoch'],
    [{ primary: 'b' }, 'primary'],
    [{ primary: null }, 'primary'],
    [{ inSync: [] }, 'inSync'],
    [{ inSync: ['c'] }, 'inSync'],
    [{ inSync: ['a', 'a'] }, 'inSync'],
    [{ inSync: 'a' }, 'inSync'],
    [{ members: [] }, 'members'],
    [{ members: [member('a'), member('a')] }, 'members'],
    [{ members: Array.from({ length: MAX_MEMBERS + 1 }, (_, i) => member(`n${i}`)) }, 'members'],
    [{ members: [{ ...member('a'), diskId: 'd' }] }, 'members[0].diskId'],
    [{ members: [member('a'), { ...member('b'), address: 'x:99999' }] }, 'members[1].address'],
    [{ members: [{ ...member('a'), clientAddress: ':1' }] }, 'members[0].clientAddress'],
    [{ members: [{ ...member('-a') }] }, 'members[0].node'],
    [{ by: null }, 'by'],
    [{ by: { node: 'a', bootId: 'a b', n: 0 } }, 'by.bootId'],
    [{ by: { node: 'a', bootId: 'x', n: -1 } }, 'by.n'],
  ];
  for (const [change, field] of wrong) {
    const error = refusal(() => checkRegister({ ...good, ...change }, { ...given('test'), where: 'here' }));
    assert.is(error.code, 'INVALID_ARGUMENT');
    assert.ok(error.message.includes(`here: ${field} is not `), `${field}: ${error.message}`);
  }
  for (const value of [null, undefined, [], 'x', 7]) refusal(() => checkRegister(value, given('test')));
  assert.match(refusal(() => checkNodeInfo({ ...member('a'), freeBytes: -1 }, given('test'))).message, /freeBytes/);
});

checks('the largest register is within its bound', () => {
  const name = (i: number): string => `${i}`.padStart(31, 'n');
  const address = `${'h'.repeat(256)}:65535`;
  const members = Array.from({ length: MAX_MEMBERS }, (_, i) => ({
    node: name(i),
    diskId: hex('d'),
    address,
    clientAddress: address,
  }));
  const largest: Register = {
    ...good,
    volume: 'v'.repeat(128),
    sizeBytes: 2 ** 44,
    version: Number.MAX_SAFE_INTEGER,
    epoch: Number.MAX_SAFE_INTEGER,
    primary: name(0),
    inSync: members.map(({ node }) => node),
    members,
    by: { node: name(0), bootId: 'b'.repeat(64), n: Number.MAX_SAFE_INTEGER },
  };
  assert.equal(checkRegister(largest, given('test')), largest);
  assert.ok(JSON.stringify(largest).length <= MAX_REGISTER_BYTES);
});

checks('successor: the expected version of the same register, and an epoch of its own for each primary', () => {
  const { version: _, ...same } = good;
  assert.equal(successor(good, 1, same), { ...good, version: 2 });
  assert.is(successor(good, 2, same), null);
  assert.is(successor(good, 1, { ...same, registerId: hex('2') }), null);
  const led = { ...good, epoch: 4, primary: 'a', inSync: ['a', 'b'] };
  const { version: __, ...next } = led;
  assert.is(successor(led, 1, { ...next, primary: '' })?.primary, '');
  assert.is(successor(led, 1, { ...next, epoch: 5, primary: 'b' })?.primary, 'b');
  for (const wrong of [{ primary: 'b' }, { epoch: 3 }, { volume: 'other' }, { volumeId: hex('b') }]) {
    assert.is(refusal(() => successor(led, 1, { ...next, ...wrong })).code, 'INVALID_ARGUMENT');
  }
});

checks('the directory forgets who is silent, and is bounded', () => {
  const directory = new NodeDirectory();
  const info = { node: 'a', address: 'h:1', clientAddress: 'h:2', freeBytes: 1 };
  directory.announce(info, 1000);
  directory.announce({ ...info, node: 'b' }, 5000);
  assert.equal(
    directory.list(6000).map(({ node, seenAgoMs }) => [node, seenAgoMs]),
    [
      ['a', 5000],
      ['b', 1000],
    ],
  );
  assert.equal(
    directory.list(1001 + NODE_TTL_MS).map(({ node }) => node),
    ['b'],
  );
  for (let i = 0; i < 1023; i++) directory.announce({ ...info, node: `n${i}` }, 6000);
  assert.is(refusal(() => directory.announce({ ...info, node: 'more' }, 6000)).code, 'TOO_MANY');
  directory.announce({ ...info, node: 'b' }, 6000);
  directory.announce({ ...info, node: 'more' }, 6001 + NODE_TTL_MS);
});

checks('addresses of coordinators', async () => {
  const tls = { ca: '' };
  for (const [url, options] of [
    ['holdfast://h', {}],
    ['holdfast://[::1]:7400', {}],
    ['holdfasts://h', { tls }],
    ['etcd://h1:2379,h2,h3:1/a/b', { user: 'u', password: 'p' }],
    ['etcds://h', { tls }],
    ['etcd://h/', {}],
  ] as const) {
    await openCoordinator(url, options).close();
  }
  for (const [url, options, words] of [
    ['http://h', {}, 'not the address'],
    ['holdfast://', {}, 'no host'],
    ['holdfast://h:0', {}, 'no host'],
    ['holdfast://h:1,h:2', {}, 'one host'],
    ['holdfast://h/volume', {}, 'no path'],
    ['holdfast://h', { user: 'u', password: 'p' }, 'knows no users'],
    ['holdfast://h', { tls }, 'etcds:// only'],
    ['etcd://h', { tls }, 'etcds:// only'],
    ['etcds://h', { tls: { cert: 'x' } }, 'go together'],
    ['etcd://h', { user: 'u' }, 'go together'],
    ['etcd://u:secret@h', {}, 'password in the address'],
    ['etcd://h:1,,h:2', {}, 'no host'],
    ['etcd://h/ä', {}, 'prefix'],
    ['etcd://h?x', {}, 'not the address'],
  ] as const) {
    const { code, message } = refusal(() => openCoordinator(url, options));
    assert.is(code, 'INVALID_ARGUMENT');
    assert.ok(message.includes(words), `${url}: ${message}`);
    assert.not(message.includes('secret'));
  }
});

checks.run();

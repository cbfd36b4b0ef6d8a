/** `holdfast kv` on a real cluster. */
// deadline: 120 s
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import { suite } from 'uvu';
import { connectKv } from '../../src/client/index.ts';
import { KvCluster, NAMES } from '../support/kv-cluster.ts';
import { MAIN } from '../support/server-process.ts';

const test = suite<{ kv: KvCluster; run: (...args: string[]) => Promise<{ code: number; out: string; err: string }> }>(
  'holdfast kv',
);

test.before(async (context) => {
  const kv = await KvCluster.start('32MiB');
  context.kv = kv;
  context.run = async (command, ...args) => {
    const { code, stdout, stderr } = await kv.cluster.cli('kv', command!, kv.url(), ...args);
    return { code, out: stdout, err: stderr };
  };
});

test.after(async ({ kv }) => {
  await kv.stop();
});

test('put, get, del, and their conditions', async ({ run }) => {
  assert.is((await run('put', 'k', 'v 1')).code, 0);
  assert.equal(await run('get', 'k'), { code: 0, out: 'v 1', err: '' });
  assert.is((await run('put', 'k', 'v 2', '--if-absent')).code, 1);
  assert.equal((await run('put', 'k', 'v 2', '--previous')).out, 'v 1');
  const { version, ...entry } = JSON.parse((await run('get', 'k', '--json', '--reads', 'any')).out) as {
    version: number;
  };
  assert.equal(entry, { found: true, key: 'k', value: 'v 2', expiresAtMs: null });
  assert.is((await run('put', 'k', 'v 3', '--if-version', String(version))).code, 0);
  assert.is((await run('put', '/wA=', 'AAE=', '--base64')).code, 0);
  const odd = JSON.parse((await run('get', '/wA=', '--base64', '--json')).out) as Record<string, unknown>;
  assert.equal([odd['keyBase64'], odd['value']], ['/wA=', '\0\x01']);
  assert.equal(JSON.parse((await run('del', 'k', 'nothing', '--json')).out).deleted, 1);
  assert.equal(await run('get', 'k'), { code: 1, out: '', err: '' });
  const refused = await run('put', 'k', 'v', '--if-absent', '--if-present');
  assert.is.not(refused.code, 0);
  assert.match(refused.err, /more than one of/);
  assert.match((await run('get', 'no base64!', '--base64')).err, /no base64/);
});

test('export, import, and files that are not whole', async ({ kv, run }) => {
  const store = await connectKv(kv.url());
  const names = Array.from({ length: 1500 }, (_, i) => `e/${String(i).padStart(4, '0')}`);
  await Promise.all(
    names.map((name, i) => store.put(name, Buffer.from([i & 255, 0, 10]), i === 7 ? { ttlMs: 3_600_000 } : {})),
  );
  const file = join(kv.cluster.dir, 'keys.jsonl');
  const exported = await run('export', file, '--json');
  assert.is(exported.code, 0, exported.err);
  const count = (JSON.parse(exported.out) as { exported: number }).exported;
  assert.is(count, await store.size());
  const before = await run('scan', '--json');
  assert.is(before.out.trim().split('\n').length, count);
  for (let at = 0; at < names.length; at += 500) {
    const transaction = store.transaction();
    for (const name of names.slice(at, at + 500)) transaction.delete(name);
    await transaction.commit();
  }
  await store.put('e/0000', 'kept');
  const text = readFileSync(file, 'utf8');
  const damaged = join(kv.cluster.dir, 'damaged.jsonl');
  for (const [bad, why] of [
    [text.slice(0, -80), /no object of JSON|cut off/],
    [text.split('\n').slice(0, -2).join('\n'), /cut off/],
    [text.replace('"value":"BQAK"', '"value":"BQAL"'), /changed, or damaged/],
    ['', /empty/],
  ] as const) {
    writeFileSync(damaged, bad);
    const refused = await run('import', damaged);
    assert.is.not(refused.code, 0);
    assert.match(refused.err, why);
  }
  assert.is(await store.get('e/0001'), null, 'something of them was written');
  // The primary is killed meanwhile: a pause.
  const { primary } = await kv.roles();
  const [imported] = await Promise.all([run('import', file, '--if-absent', '--json'), kv.cluster.kill(primary)]);
  assert.is(imported.code, 0, imported.err);
  assert.equal((JSON.parse(imported.out) as { imported: number }).imported, 1499);
  assert.is((await store.get('e/0000'))!.value.toString(), 'kept');
  assert.ok((await store.get('e/0007'))!.expiresAtMs! > Date.now());
  const keys = await run('scan', '--prefix', 'e/', '--keys-only');
  assert.equal(keys.out.trim().split('\n'), names);
  await kv.cluster.restart(primary);
  await kv.alive();
  await store.close();
});

test('what is shown of a key names that key alone', async ({ kv, run }) => {
  const store = await connectKv(kv.url());
  await store.transaction().put('s/\x01', 'a\u2028b').put('s/\\x01', 'C:\\dir').commit();
  assert.equal((await run('scan', '--prefix', 's/')).out, 's/\\x01\ta\\xe2\\x80\\xa8b\ns/\\x5cx01\tC:\\dir\n');
  await store.close();
});

test('watch prints changes until it is interrupted', async ({ kv, run }) => {
  const store = await connectKv(kv.url());
  const { version } = await store.put('w/1', 'one');
  await store.put('w/2', 'two');
  await store.delete('w/1');
  const args = ['kv', 'watch', kv.url(), '--prefix', 'w/', '--after', String(version), '--json'];
  const spawned = spawn(process.execPath, [MAIN, ...args]);
  const lines: Array<{ type: string; key: string }> = [];
  let printed = '';
  await new Promise<void>((resolve) =>
    spawned.stdout.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
      if (printed.split('\n').length > 2) resolve();
    }),
  );
  spawned.kill('SIGINT');
  assert.is(await new Promise((resolve) => spawned.once('exit', resolve)), 0);
  for (const line of printed.trim().split('\n')) lines.push(JSON.parse(line) as (typeof lines)[number]);
  assert.equal(
    lines.map(({ type, key }) => [type, key]),
    [
      ['put', 'w/2'],
      ['delete', 'w/1'],
    ],
  );
  assert.is((await run('watch', '--after', 'x')).code === 0, false);
  await store.close();
});

test('a node keeps lower limits of keys and values, and refuses higher ones', async ({ kv, run }) => {
  const { primary } = await kv.roles();
  for (const name of NAMES) if (name !== primary) await kv.cluster.kill(name, 'SIGTERM');
  await kv.cluster.kill(primary, 'SIGTERM');
  for (const name of NAMES) await kv.cluster.restart(name, '--kv-max-key', '16B', '--kv-max-value', '1KiB');
  await kv.alive();
  assert.is((await run('put', 'short', 'x'.repeat(1024))).code, 0);
  assert.match((await run('put', 'short', 'x'.repeat(1025))).err, /a value of 1025, the limit is 1024 bytes/);
  assert.match((await run('put', 'a key of 17 bytes', 'x')).err, /a key of 17 bytes, the limit is 16/);
  const dir = join(kv.cluster.dir, 'z');
  const args = ['node', '--name', 'z', '--dir', dir, '--kv-max-value', '1MiB'];
  const { code, stderr } = await kv.cluster.cli(...args);
  assert.is(code, 1);
  assert.match(stderr, /--kv-max-value.*1048576 bytes; at most 196608/);
});

test.run();

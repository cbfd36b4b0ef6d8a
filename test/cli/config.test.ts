/** Config files: every flag has a key; what is wrong is told with its place; nothing secret is in them or is repeated. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { addConfigCommand, configKeys } from '../../src/cli/config-command.ts';
import { exampleOf } from '../../src/cli/config-example.ts';
import { type Finding, lineOf, parseConfig } from '../../src/cli/config-file.ts';
import { SECTIONS, keysOf, nearest } from '../../src/cli/config-schema.ts';
import { addCoordinatorCommand } from '../../src/cli/coordinator-command.ts';
import { addNbdCommand } from '../../src/cli/nbd-command.ts';
import { addNodeCommand } from '../../src/cli/node-command.ts';
import { addServeCommand } from '../../src/cli/serve-command.ts';
import { addUpCommand } from '../../src/cli/up-command.ts';
import { freePorts } from '../support/free-ports.ts';
import { holdfast, launch, temporaryFolder } from '../support/server-process.ts';

const test = suite('config');
const run = (work: () => Promise<void>): Promise<void> => work();

function program(): Command {
  const made = new Command('holdfast');
  for (const add of [addNodeCommand, addCoordinatorCommand, addServeCommand, addNbdCommand, addUpCommand])
    add(made, run);
  addConfigCommand(made, run);
  return made;
}
const ALL = configKeys(program());
const parse = (text: string): ReturnType<typeof parseConfig> => parseConfig(text, '/etc/holdfast', ALL);
const findingsOf = (text: string): string[] => parse(text).findings.map((one: Finding) => lineOf('f', one));
/** One fault, which reads so. */
const refuses = (text: string, ...expected: RegExp[]): void => {
  const findings = findingsOf(text);
  assert.is(findings.length, expected.length, findings.join('\n'));
  expected.forEach((pattern, i) => assert.match(findings[i]!, pattern));
};

test('every flag of these commands has a key, and every key a flag', () => {
  const commands = program().commands;
  for (const { section, keys, untyped } of ALL) {
    assert.equal(
      untyped.map(({ flags }) => flags),
      [],
      'say in src/cli/config-types.ts what the values of these flags look like',
    );
    const flags = commands.find((one) => one.name() === section)!.options.map(({ flags }) => flags);
    const config = flags.filter((one) => one.startsWith('--config '));
    assert.equal([...keys.map(({ option }) => option.flags), ...config], flags);
    assert.is(new Set(keys.map(({ key }) => key)).size, keys.length, 'two flags have one key');
  }
});

test('a flag whose type nobody has said has no key, and is noticed', () => {
  const command = program().commands[0]!.option('--brand-new <thing>', 'of today').option('--also-ms <ms>', 'typed');
  const { untyped, keys } = keysOf(command, 'node');
  assert.equal(
    untyped.map(({ long }) => long),
    ['--brand-new'],
  );
  assert.ok(keys.some(({ key }) => key === 'alsoMs'));
});

test('a flag that takes several values is a list', () => {
  const command = program().commands[0]!.option('--also <name...>', 'names');
  const all = [keysOf(command, 'node')];
  const { findings, values } = parseConfig('node:\n  also: [a, b]\n', '/', all);
  assert.equal([findings, values.get('node')], [[], { also: ['a', 'b'] }]);
  assert.match(parseConfig('node:\n  also: a\n', '/', all).findings[0]!.message, /a list/);
});

test('the examples pass, also with every line taken out of its comment', () => {
  for (const keys of ALL) {
    const text = exampleOf(keys);
    assert.equal(findingsOf(text), []);
    const whole = text.replace(/^ {2}#(?=\w+:)/gm, '  ');
    const { findings, values } = parse(whole);
    assert.equal(findings, []);
    assert.equal(Object.keys(values.get(keys.section)!).sort(), keys.keys.map(({ key }) => key).sort());
  }
});

test('unknown keys, wrong types, wrong units, keys that are there twice: line, column, key, and what was meant', () => {
  refuses('node:\n  listn: 127.0.0.1:7401\n', /^f:2:3: node\.listn: no such key; did you mean listen\?$/);
  refuses('node:\n  peer-listen: 127.0.0.1:7441\n', /^f:2:3: node\.peer-listen: .*did you mean peerListen\?$/);
  refuses('node:\n  qqqqq: 1\n', /^f:2:3: node\.qqqqq: no such key$/);
  refuses(
    'nod:\n  name: a\n',
    /^f:1:1: nod: no such section; there are node, coordinator, serve, nbd, up; did you mean node\?$/,
  );
  refuses('node:\n  name: 7\n', /^f:2:9: node\.name: it is not a text/);
  refuses('node:\n  listen: 7401\n', /^f:2:11: node\.listen: it is not a text: write HOST:PORT/);
  refuses('node:\n  listen: localhost\n', /^f:2:11: node\.listen: write HOST:PORT/);
  refuses('node:\n  heartbeatMs: 100ms\n', /^f:2:16: node\.heartbeatMs: .*milliseconds.*without a unit/);
  refuses('node:\n  heartbeatMs: 1.5\n', /^f:2:16: node\.heartbeatMs: /);
  refuses('node:\n  heartbeatMs: 5\n', /^f:2:16: node\.heartbeatMs: it is less than 10 ms$/);
  refuses('node:\n  scrubDays: 7d\n', /^f:2:14: node\.scrubDays: write a number, without a unit$/);
  refuses('node:\n  syncRate: 100MB\n', /^f:2:13: node\.syncRate: "100MB" is not a size; write .*MiB/);
  refuses('node:\n  enableFaults: "yes"\n', /^f:2:17: node\.enableFaults: write true or false/);
  refuses('node:\n  logLevel: loud\n', /^f:2:13: node\.logLevel: write info, or trace/);
  refuses('node:\n  name: a\n  dir: ./a\n  name: b\n', /^f:4:3: node\.name: this key is there twice$/);
  refuses('node:\n  name:\n', /^f:2:8: node\.name: it is not a text/);
  refuses('node:\n  name: a\nnode:\n  dir: b\n', /^f:3:1: node: this key is there twice$/);
  refuses('- node\n', /^f:1:1: write sections/);
  refuses('node: a\n', /^f:1:7: node: it is a section/);
  refuses('node:\n  name: a\n---\nnode:\n', /^f:3:1: a second document/);
  refuses('node:\n  name: "a\n', /^f:\d+:\d+: it is not YAML: /);
  refuses('node:\n  name: &x a\n', /^f:2:\d+: an anchor/);
  refuses('node:\n  name: &x a\n  dir: *x\n', /^f:2:\d+: an anchor/, /^f:3:\d+: an alias/);
  refuses('node:\n  name: !secret a\n', /^f:2:\d+: .*(?:tag|TAG|Unresolved)/, /^f:2:\d+: a tag/);
  refuses('nbd:\n  listen: unix:relative\n', /^f:2:11: nbd\.listen: write HOST:PORT or unix:\/PATH/);
  refuses('nbd:\n  retry: 30\n', /^f:2:10: nbd\.retry: .*write a duration, such as 30s/);
  refuses('serve:\n  durability: sometimes\n', /^f:2:15: serve\.durability: write always, or none/);
  // All of them at once.
  refuses('node:\n  listn: a\n  heartbeatMs: 1s\ncoordinator:\n  dri: x\n', /^f:2:3/, /^f:3:16/, /^f:5:3.*mean dir\?/);
});

test('a secret is refused, told where it belongs, and not repeated', () => {
  const secret = 'hunter2-and-more';
  const pem = `|\n    -----BEGIN PRIVATE KEY-----\n    ${secret}\n`;
  for (const text of [
    `kvPassword: ${secret}`,
    `nbdTlsKeyFile: ${pem}`,
    `nbdTlsKey: ${pem}`,
    `nbdTlsPsk: {a: ${secret}}`,
  ]) {
    const [finding, ...more] = findingsOf(`node:\n  ${text}\n`);
    assert.equal(more, []);
    assert.match(finding!, /File/i);
    assert.not.match(finding!, /hunter2|BEGIN/);
  }
  refuses(
    `node:\n  coordinator: etcd://root:${secret}@h:2379\n`,
    /^f:2:16: node\.coordinator: write holdfast:\/\/HOST:7400 or/,
  );
  refuses('node:\n  nbdTlsKey: ./key.pem\n', /is never in this file.*did you mean nbdTlsKeyFile\?$/);
});

test('paths start from the folder of the file; an empty file and an empty section are no fault', () => {
  const { values } = parse('node:\n  dir: ./a\n  kvPasswordFile: /run/secret\n');
  assert.equal(values.get('node'), { dir: '/etc/holdfast/a', kvPasswordFile: '/run/secret' });
  assert.equal(parse('').findings, []);
  assert.equal(parse('node:\n').values.get('node'), {});
});

test('what is near', () => {
  assert.is(nearest('heartbeat', ['heartbeatMs', 'listen']), 'heartbeatMs');
  assert.is(nearest('Sync_Rate', ['syncRate']), 'syncRate');
  assert.is(nearest('zzz', ['dir', 'kv']), null);
});

test('a coordinator and a node run from a file; a flag overrides it, before it and after it', async () => {
  const dir = temporaryFolder();
  const file = join(dir, 'both.yaml');
  const [atCoordinator, client, peer, other] = await freePorts(4);
  const lines = [
    'coordinator:',
    '  dir: ./coordinator',
    `  listen: 127.0.0.1:${atCoordinator}`,
    'node:',
    '  name: from-file',
    '  dir: ./a',
    `  coordinator: holdfast://127.0.0.1:${atCoordinator}`,
    `  listen: 127.0.0.1:${client}`,
    `  peerListen: 127.0.0.1:${peer}`,
    '  syncRate: 64MiB',
    '  scrubDays: 0.5',
    '  json: false',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  const checked = await holdfast(['config', 'check', file, '--json']);
  assert.is(checked.code, 0, checked.stderr);
  const expected = { ok: true, file, sections: ['coordinator', 'node'], findings: [], missing: [] };
  assert.equal(JSON.parse(checked.stdout.toString()), expected);

  const first = await launch<{ listen: string }>(['coordinator', '--config', file], {});
  assert.is(first.info.listen, `127.0.0.1:${atCoordinator}`);
  const args = ['node', '--listen', `127.0.0.1:${other}`, '--config', file, '--name', 'from-flag'];
  const second = await launch<{ node: string; listen: string; peerListen: string }>(args, {});
  assert.is(second.info.node, 'from-flag');
  assert.is(second.info.listen, `127.0.0.1:${other}`);
  assert.is(second.info.peerListen, `127.0.0.1:${peer}`);
  assert.match(readFileSync(join(dir, 'a', 'node.json'), 'utf8'), /from-flag/);
  for (const { child, exited } of [second, first]) {
    child.kill('SIGTERM');
    assert.is((await exited).code, 0);
  }
});

test('a volume by itself and a gateway to it run from one file, whose section each takes', async () => {
  const dir = temporaryFolder();
  const file = join(dir, 'both.yaml');
  const [client, exported] = await freePorts(2);
  const lines = [
    'serve:',
    '  size: 1MiB',
    '  allowSparse: true',
    '  name: filed',
    `  listen: 127.0.0.1:${client}`,
    'nbd:',
    `  listen: 127.0.0.1:${exported}`,
    '  readOnly: true',
    '  retry: 30s',
    '  connections: 2',
  ];
  writeFileSync(file, `${lines.join('\n')}\n`);
  const server = await launch<{ listen: string; volume: string }>(['serve', join(dir, 'v'), '--config', file], {});
  assert.equal([server.info.listen, server.info.volume], [`127.0.0.1:${client}`, 'filed']);
  const url = `holdfast://127.0.0.1:${client}/filed`;
  const gateway = await launch<{ nbd: string; readOnly: boolean }>(['nbd', url, '--config', file], {});
  assert.is(gateway.info.readOnly, true);
  assert.match(gateway.info.nbd, new RegExp(`:${exported}\\b`));
  for (const { child, exited } of [gateway, server]) {
    child.kill('SIGTERM');
    assert.is((await exited).code, 0);
  }
});

test('a file with a fault starts nothing, and ends the process with code 2; config check with 1', async () => {
  const dir = temporaryFolder();
  const file = join(dir, 'node.yaml');
  writeFileSync(file, 'node:\n  name: a\n  dir: ./a\n  listn: 127.0.0.1:1\n');
  const started = await holdfast(['node', '--config', file]);
  assert.is(started.code, 2);
  assert.match(started.stderr, /node\.yaml:4:3: node\.listn: no such key; did you mean listen\?/);
  const checked = await holdfast(['config', 'check', file]);
  assert.is(checked.code, 1);
  assert.match(checked.stdout.toString(), /node\.yaml:4:3: node\.listn/);
  writeFileSync(file, 'coordinator:\n  dir: ./c\n');
  assert.match((await holdfast(['node', '--config', file])).stderr, /node: there is no such section/);
  writeFileSync(file, `node: # ${'x'.repeat(70_000)}\n`);
  assert.match((await holdfast(['node', '--config', file])).stderr, /longer than 65536 bytes/);
  const absent = await holdfast(['node', '--config', join(dir, 'absent')]);
  assert.is(absent.code, 2);
  assert.match(absent.stderr, /read the config file/);
});

test('config example prints what config check takes', async () => {
  const dir = temporaryFolder();
  for (const section of SECTIONS) {
    const { code, stdout } = await holdfast(['config', 'example', section]);
    assert.is(code, 0);
    const file = join(dir, `${section}.yaml`);
    writeFileSync(file, stdout);
    assert.is((await holdfast(['config', 'check', file])).code, 0);
  }
  assert.is((await holdfast(['config', 'example', 'gateway'])).code, 1);
});

test.run();

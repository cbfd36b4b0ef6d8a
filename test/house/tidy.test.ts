/** The form of the code: arrows between rooms, purity, names, length. Each rule is also shown to bite. */
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { withoutComments } from './comments.ts';
import {
  STORAGE_IO_FILES,
  arrowFindings,
  commandsOf,
  importsOf,
  nameFindings,
  purityFindings,
  sourceFindings,
  testFindings,
  textFindings,
} from './rules.ts';

/** The repository: two above `dist/test/house` there is `dist`, and its parent holds package.json. */
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));
/** Not in the repository: see .gitignore. */
const IGNORED = ['.git', 'node_modules', 'dist', 'holdfast-data', 'coverage', 'bench/out'];
const BINARY = /\.(?:png|jpg|gif|ico|woff2|tgz|gz)$/;

function filesUnder(folder: string): string[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
    if (IGNORED.includes(path) || path.endsWith('.tgz')) return [];
    return entry.isDirectory() ? filesUnder(path) : entry.isFile() ? [path] : [];
  });
}

const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const files = filesUnder('');
const sources = files.filter((path) => path.endsWith('.ts'));

function assertNone(findings: string[]): void {
  assert.equal(findings, [], findings.join('\n'));
}

const tidy = suite('tidy');

tidy('the files were found', () => {
  for (const path of ['package.json', 'src/base/errors.ts', 'native-free/flock.ts', 'test/house/tidy.test.ts']) {
    assert.ok(files.includes(path), path);
  }
  assert.ok(sources.length > 30);
});

tidy('no import arrow runs back', () => assertNone(sources.flatMap((path) => arrowFindings(path, read(path)))));

tidy('pure rooms touch no files, sockets, clocks, timers or randomness', () => {
  assertNone(sources.flatMap((path) => purityFindings(path, read(path))));
});

tidy('every exempted file exists', () => {
  for (const path of STORAGE_IO_FILES) assert.ok(existsSync(join(ROOT, path)), path);
});

tidy('names are kebab-case', () => assertNone(files.flatMap(nameFindings)));

tidy('nothing unfinished, and nothing of the machine it was written on', () => {
  const texts = files.filter((path) => !BINARY.test(path));
  assertNone(texts.flatMap((path) => textFindings(path, read(path))));
});

tidy('sources open with their purpose, are short and erasable', () => {
  assertNone(sources.flatMap((path) => sourceFindings(path, read(path))));
});

tidy('every test file runs all of its tests', () => {
  assertNone(sources.flatMap((path) => testFindings(path, read(path))));
});

tidy('the README begins with two commands', () => {
  assert.equal(commandsOf(read('README.md')).slice(0, 2), ['npm ci', 'npm start']);
});

tidy('the lock file names only the public registry', () => {
  const hosts = [...read('package-lock.json').matchAll(/"resolved": "([^"]*)"/g)].map(
    (match) => new URL(match[1]!).host,
  );
  assert.equal(
    hosts.filter((host) => host !== 'registry.npmjs.org'),
    [],
  );
});

tidy('what is published has its licence and its start', () => {
  const { license, scripts, bin } = JSON.parse(read('package.json')) as {
    license: string;
    scripts: Record<string, string>;
    bin: Record<string, string>;
  };
  assert.is(license, 'Apache-2.0');
  assert.match(read('LICENSE'), /Apache License\s+Version 2\.0/);
  // `npm ci --ignore-scripts` skips `prepare`, so nothing may depend on it.
  assert.is(scripts['prepare'], undefined);
  for (const path of Object.values(bin)) {
    const source = path.replace(/^dist\//, '').replace(/\.js$/, '.ts');
    assert.ok(read(source).startsWith('#!/usr/bin/env node\n'), source);
  }
  assert.ok(statSync(join(ROOT, '.ci/run')).mode & 0o100, '.ci/run is executable');
});

tidy.run();

const bites = suite('tidy: each rule bites');

/** So many findings in `text` as the file `path`. */
type Rule = (path: string, text: string) => string[];
const finds = (rule: Rule, path: string, text: string, count = 1): void => {
  assert.is(rule(path, text).length, count, `${path}: ${text}`);
};

bites('imports are seen in every form, and not in comments', () => {
  const text = [
    `import a from './a.ts';`,
    `import type { B } from './b.ts';`,
    `import {\n  c,\n  type D,\n} from './c.ts';`,
    `import './d.ts';`,
    `export * from './e.ts';`,
    `const f = await import('./f.ts'), g = new URL('./g.js', import.meta.url);`,
    `// import h from './h.ts';`,
    `/* import i from './i.ts'; */`,
  ].join('\n');
  const seen = importsOf(text);
  assert.equal(
    seen.map((one) => one.specifier),
    ['./a.ts', './b.ts', './c.ts', './d.ts', './e.ts', './f.ts', './g.js'],
  );
  assert.equal(
    seen.filter((one) => one.typeOnly).map((one) => one.specifier),
    ['./b.ts'],
  );
});

bites('comments are told from what looks like one', () => {
  const kept = [
    `const a = 'http://x', b = "/* b */";`,
    'const c = `${d ? `// ${e}` : "`"} // f`;',
    `const g = /[/*]'\\/\\/*/g.test(h) || i / 2 / j;`,
    `const k = '\\'// l';`,
  ].join('\n');
  assert.is(withoutComments(kept), kept);
  assert.is(withoutComments('a // b\nc /* d\ne */ f'), 'a     \nc     \n     f');
  assert.is(withoutComments('`${ {a: /* b */ 1} }` // c'), '`${ {a:         1} }`     ');
});

bites('arrows', () => {
  finds(arrowFindings, 'src/protocol/x.ts', `import { a } from '../base/units.ts';`, 0);
  finds(arrowFindings, 'src/base/x.ts', `import { a } from '../protocol/frame.ts';`);
  finds(arrowFindings, 'src/client/x.ts', `import { a } from '../storage/arena.ts';`);
  finds(arrowFindings, 'src/client/x.ts', `import type { A } from '../node/server.ts';`);
  finds(arrowFindings, 'src/node/x.ts', `import { a } from '../cli/output.ts';`);
  finds(arrowFindings, 'src/node/x.ts', `import { a } from '../client/client.ts';`);
  finds(arrowFindings, 'src/node/x.ts', `import { a } from '../../bench/load/tally.ts';`);
  finds(arrowFindings, 'bench/load/x.ts', `import { a } from '../../src/cli/output.ts';`);
  finds(arrowFindings, 'src/cli/x.ts', `import { a } from '../../bench/load/tally.ts';`, 0);
  finds(arrowFindings, 'src/storage/x.ts', `import type { A } from '../replication/store.ts';`, 0);
  finds(arrowFindings, 'src/storage/x.ts', `import { type A } from '../replication/store.ts';`);
  finds(arrowFindings, 'src/storage/x.ts', `import type { A } from '../replication/primary-volume.ts';`);
  finds(arrowFindings, 'src/attic/x.ts', ``);
});

bites('purity', () => {
  finds(purityFindings, 'src/storage/x.ts', `import { readSync } from 'node:fs';`);
  finds(purityFindings, 'src/storage/lock.ts', `import { readSync } from 'node:fs';`, 0);
  finds(purityFindings, 'src/node/x.ts', `import net from 'node:net';`, 0);
  finds(purityFindings, 'src/protocol/x.ts', `import net from 'net';`);
  finds(purityFindings, 'src/protocol/x.ts', `import type { Socket } from 'node:net';`, 0);
  finds(purityFindings, 'src/base/x.ts', `import { pino } from 'pino';`);
  finds(purityFindings, 'src/base/x.ts', `import { randomBytes } from 'node:crypto';`);
  finds(purityFindings, 'src/base/x.ts', `// Date.now() would be wrong here\nconst a = 'x'; /* setTimeout */`, 0);
  const calls = ['Date.now()', 'new Date()', 'performance.now()', 'Math.random()', 'setTimeout(f, 1)'];
  for (const call of [...calls, 'setInterval(f)', 'setImmediate(f)', 'process.hrtime()', 'process.nextTick(f)']) {
    finds(purityFindings, 'src/replication/x.ts', `const a = ${call};`);
  }
  finds(purityFindings, 'src/client/x.ts', `import { Piscina } from 'piscina';`);
  finds(purityFindings, 'src/client/x.ts', `import net from 'node:net';`, 0);
});

bites('names', () => {
  for (const good of [
    'src/base/dirty-bitmap.ts',
    'test/storage/a.test.ts',
    'README.md',
    '.ci/run',
    'docs/decisions/0001-a.md',
  ]) {
    assert.equal(nameFindings(good), []);
  }
  for (const bad of ['src/base/dirtyBitmap.ts', 'src/base/dirty_bitmap.ts', 'src/Base/units.ts', 'docs/a b.md']) {
    assert.is(nameFindings(bad).length, 1, bad);
  }
});

bites('texts', () => {
  finds(textFindings, 'docs/a.md', `fine\n${'TO'}${'DO'}: not fine`);
  finds(textFindings, 'a.ts', `// ${'FIX'}${'ME'}`);
  finds(textFindings, 'a.ts', `'/${'work'}/main'\nfile:///${'root'}/x`, 2);
  finds(textFindings, 'a.ts', `'net/${'work'}/main' ./${'work'}/x todo`, 0);
});

bites('sources', () => {
  finds(sourceFindings, 'src/base/x.ts', `/** Good. */\nexport const a = 1;\n`, 0);
  finds(sourceFindings, 'src/cli/main.ts', `#!/usr/bin/env node\n/** Good. */\n`, 0);
  finds(sourceFindings, 'src/base/x.ts', `export const a = 1;\n`);
  finds(sourceFindings, 'test/x.ts', `x\n`.repeat(500), 0);
  finds(sourceFindings, 'test/x.ts', `x\n`.repeat(501));
  finds(sourceFindings, 'test/x.ts', `export const ${'enum'} A { B }`);
  finds(sourceFindings, 'test/x.ts', `class A {\n  constructor(\n    ${'private'} a: number) {} }`);
  finds(sourceFindings, 'test/x.ts', `class A { constructor(a: A, ${'readonly'} b?: B) {} }`);
  finds(
    sourceFindings,
    'test/x.ts',
    `class A { constructor(a: A, b: ${'readonly'} B[], c: Map<A, ${'readonly'} B[]>) {} }`,
    0,
  );
  finds(sourceFindings, 'test/x.ts', `import a from './a';`);
});

bites('tests', () => {
  finds(testFindings, 'test/x.test.ts', `t('a', f);\nt.run();`, 0);
  finds(testFindings, 'test/x.test.ts', `t('a', f);\n// t.run();`);
  finds(testFindings, 'test/x.test.ts', `t.${'only'}('a', f);\nt.run();`);
  finds(testFindings, 'test/x.test.ts', `t.${'skip'}('a', f);\nt.run();`);
});

bites('commands', () => {
  const text =
    'Text `no`.\n```sh\n# first\n$ npm ci   # installs\nnpm start\n```\nmore\n```\na && b\n```\n```json\n{}\n```\n';
  assert.equal(commandsOf(text), ['npm ci', 'npm start', 'a', 'b']);
});

bites.run();

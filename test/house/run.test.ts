/** The runner itself, on small broken test files: each of these must fail, although uvu or Node let most of them pass. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';

const RUNNER = fileURLToPath(new URL('../run.js', import.meta.url));
const UVU = import.meta.resolve('uvu');
const ERRORS = new URL('../../src/base/errors.js', import.meta.url).href;
const HEAD = `import { suite } from '${UVU}';\nconst t = suite('fixture');\n`;
const GOOD = `${HEAD}t('one', () => {});\nt('two', () => {});\nt.run();\n`;

let dir = '';
const runner = suite('runner');
runner.before.each(() => {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-runner-'));
  writeFileSync(join(dir, 'package.json'), '{"type":"module"}');
});
runner.after.each(() => rmSync(dir, { recursive: true }));

interface Run {
  status: number | null;
  text: string;
  last: string;
}

function run(files: Record<string, string>, ...args: string[]): Run {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(dir, name)), { recursive: true });
    writeFileSync(join(dir, name), text);
  }
  const child = spawnSync(process.execPath, [RUNNER, '--dir', dir, '--grace-ms', '500', ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  });
  const lines = child.stdout.trimEnd().split('\n');
  return { status: child.status, text: child.stdout, last: lines.at(-1)! };
}

function assertFails(body: string, last: string, said: RegExp, ...args: string[]): Run {
  const result = run({ 'unit/bad.test.js': body }, ...args);
  assert.is(result.last, last, result.text);
  assert.is(result.status, 1);
  assert.match(result.text, said);
  return result;
}

runner('counts tests over files, and hides the output of good ones', () => {
  const noisy = GOOD.replace('() => {}', `() => { console.log('noise'); }`);
  const files = {
    'unit/a.test.js': GOOD,
    'process/b.test.js': noisy,
    'top.test.js': GOOD,
    'unit/helper.js': 'throw 1',
  };
  const quiet = run(files);
  assert.is(quiet.last, '6 passed, 0 failed');
  assert.is(quiet.status, 0);
  assert.not.match(quiet.text, /noise/);
  assert.match(quiet.text, /^unit +1 files {2}2 passed/m);
  assert.match(run({}, '--verbose').text, /noise/);
});

runner('runs only the files whose path holds an argument; none at all is a failure', () => {
  const files = { 'unit/a.test.js': GOOD, 'unit/b.test.js': GOOD };
  assert.is(run(files, 'b.test').last, '2 passed, 0 failed');
  const none = run({}, 'nothing-like-it');
  assert.is(none.last, '0 passed, 0 failed');
  assert.is(none.status, 1);
});

runner('a failed assertion', () => {
  const body = `${HEAD}t('good', () => {});\nt('bad', () => { throw new Error('so it is'); });\nt.run();\n`;
  assertFails(body, '1 passed, 1 failed', /so it is/);
});

runner('an error whose details are an object is shown, and the tests after it run', () => {
  const body = `import { HoldfastError } from '${ERRORS}';
    ${HEAD}t('bad', () => { throw new HoldfastError('IO_ERROR', { detail: 'shown' }); });\nt('good', () => {});\nt.run();`;
  assertFails(body, '1 passed, 1 failed', /input\/output error \(EIO\): shown/);
});

runner('an object in place of a string still fails outside of uvu', () => {
  const body = `${HEAD}t('bad', () => { ({}).split('x'); });\nt.run();`;
  assertFails(body, '0 passed, 1 failed', /split is not a function/);
});

runner('throw null', () => {
  const body = `${HEAD}t('good', () => {});\nt('bad', () => { throw null; });\nt('late', () => {});\nt.run();`;
  assertFails(body, '1 passed, 2 failed', /a suite stopped in the middle/);
});

for (const hook of ['before', 'before.each', 'after.each']) {
  runner(`a throwing ${hook} hook`, () => {
    const body = `${HEAD}t.${hook}(() => { throw new Error('hook'); });\nt('one', () => {});\nt('two', () => {});\nt.run();`;
    assertFails(body, '0 passed, 2 failed', /FAIL unit\/bad/);
  });
}

runner('a throwing after hook', () => {
  const body = `${HEAD}t.after(() => { throw new Error('hook'); });\nt('one', () => {});\nt.run();`;
  assertFails(body, '0 passed, 1 failed', /there is no summary/);
});

runner('a missing .run(), alone and beside a suite that is run', () => {
  assertFails(`${HEAD}t('one', () => {});\n`, '0 passed, 1 failed', /declared but never run: t/);
  const body = `${GOOD}const other = suite('other');\nother('three', () => {});\n`;
  assertFails(body, '2 passed, 1 failed', /declared but never run: other/);
});

runner('a suite without tests', () => {
  assertFails(`${HEAD}t.run();\n`, '0 passed, 1 failed', /it ran no tests/);
});

runner('an early process.exit(0): between tests, in a test, after the summary with a code', () => {
  assertFails(`${GOOD}process.exit(0);`, '0 passed, 1 failed', /there is no summary/);
  assertFails(`${HEAD}t('one', () => process.exit(0));\nt.run();`, '0 passed, 1 failed', /there is no summary/);
  assertFails(`${GOOD}process.on('exit', () => process.exit(3));`, '2 passed, 1 failed', /its exit code is 3/);
});

runner('a syntax error, a failed import, an unhandled rejection after the summary', () => {
  assertFails('const = 1;', '0 passed, 1 failed', /SyntaxError/);
  assertFails(`import './missing.js';\n${GOOD}`, '0 passed, 1 failed', /ERR_MODULE_NOT_FOUND/);
  const late = `${GOOD}setTimeout(() => Promise.reject(new Error('late')), 200);`;
  assertFails(late, '2 passed, 1 failed', /its exit code is 1/);
});

/** False once it is gone, or dead and only waiting for its parent to ask. */
function isAlive(pid: number): boolean {
  try {
    return !/\) [ZX] /.test(readFileSync(`/proc/${pid}/stat`, 'latin1'));
  } catch {
    return false;
  }
}

runner('a hang is killed at the deadline, with the children of the process', async () => {
  const body = `import { spawn } from 'node:child_process';
    ${HEAD}t('hangs', async () => {
      console.log('child ' + spawn('sleep', ['300']).pid);
      await new Promise(() => setInterval(() => {}, 1000));
    });\nt.run();`;
  const { text } = assertFails(
    body,
    '0 passed, 1 failed',
    /still running at its deadline of 1 s/,
    '--deadline-ms',
    '1000',
  );
  const child = Number(/child (\d+)/.exec(text)![1]);
  // The kernel delivers the signal in its own time; the sleep itself would take minutes.
  for (let look = 0; look < 100 && isAlive(child); look++) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.not(isAlive(child));
});

runner('a busy loop is killed too', () => {
  const body = `${HEAD}t('spins', () => { for (;;); });\nt.run();`;
  assertFails(body, '0 passed, 1 failed', /still running at its deadline/, '--deadline-ms', '1000');
});

runner('a file can ask for a longer or shorter deadline', () => {
  const slow = `${HEAD}t('slow', () => new Promise((resolve) => setTimeout(resolve, 1500)));\nt.run();`;
  assertFails(slow, '0 passed, 1 failed', /deadline of 0.8 s/, '--deadline-ms', '800');
  const asking = run({ 'unit/bad.test.js': `// deadline: 60 s\n${slow}` }, '--deadline-ms', '800');
  assert.is(asking.last, '1 passed, 0 failed', asking.text);
});

runner('a server that is left open', () => {
  const body = `import { createServer } from 'node:net';\n${GOOD}createServer().listen(0, '127.0.0.1');`;
  assertFails(body, '2 passed, 1 failed', /stayed alive for 0.5 s after its last test.*still open: .*TCPServer/s);
});

runner('a process left behind is killed and mentioned', () => {
  const body = `import { spawn } from 'node:child_process';
    const child = spawn('sleep', ['300'], { stdio: 'inherit' });\nchild.unref();\n${GOOD}`;
  const result = run({ 'unit/leak.test.js': body });
  assert.is(result.last, '2 passed, 0 failed', result.text);
  assert.match(result.text, /left processes behind/);
});

runner('a skip counts only with its reason, and says it', () => {
  const skip = `console.log('# skip: no such tool here');`;
  const result = run({ 'interop/skip.test.js': skip, 'unit/a.test.js': GOOD });
  assert.is(result.last, '2 passed, 0 failed, 1 skipped', result.text);
  assert.is(result.status, 0);
  assert.match(result.text, /skipped: no such tool here/);
  rmSync(join(dir, 'unit'), { recursive: true });
  const alone = run({});
  assert.is(alone.last, '0 passed, 0 failed, 1 skipped');
  assert.is(alone.status, 1, 'nothing ran');
  assertFails(`${skip}\nprocess.exit(1);`, '0 passed, 1 failed, 1 skipped', /there is no summary/);
});

runner.run();

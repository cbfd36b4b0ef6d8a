/**
 * Contract of the folder lock, run on each way of taking it and on each pair of ways, with real processes.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs, { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { HoldfastError } from '../../src/base/errors.ts';
import { type LockOptions, type LockWay, isLockEntry, lockFolder } from '../../src/storage/lock.ts';
import { ownIdentity } from '../../native-free/process-identity.ts';

const MODULE = new URL('../../src/storage/lock.js', import.meta.url).href;

const OPTIONS: Record<LockWay, LockOptions> = {
  addon: { native: true },
  flock: { native: false },
  claim: { native: false, flockProgram: '/nonexistent/flock' },
};

/** The ways that this machine has: the addon is optional, flock(1) may be missing. */
function availableWays(): LockWay[] {
  const dir = mkdtempSync(join(tmpdir(), 'holdfast-ways-'));
  const ways = (Object.keys(OPTIONS) as LockWay[]).filter((way) => {
    const lock = lockFolder(dir, OPTIONS[way]);
    lock.release();
    return lock.way === way;
  });
  rmSync(dir, { recursive: true });
  return ways;
}

const ways = availableWays();
console.log(`ways of locking on this machine: ${ways.join(', ')}`);

let dir = '';
const children: ChildProcess[] = [];
const folders: string[] = [];

function newFolder(): void {
  dir = mkdtempSync(join(tmpdir(), 'holdfast-lock-'));
  folders.push(dir);
}

async function cleanUp(): Promise<void> {
  for (const child of children.splice(0)) await kill(child);
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
}

/** A process that locks `dir`, runs `then`, says one line and stays. */
async function holder(
  way: LockWay,
  then = '',
  stderr: 'inherit' | 'ignore' = 'inherit',
): Promise<{ child: ChildProcess; line: string }> {
  const program = `
    import { spawn } from 'node:child_process';
    const { lockFolder } = await import(process.argv[1]);
    const lock = lockFolder(process.argv[2], JSON.parse(process.argv[3]));
    let line = lock.way;
    ${then}
    process.stdout.write(line + '\\n');
    setInterval(() => lock, 60_000);`;
  const child = spawn(
    process.execPath,
    ['--input-type=module', '-e', program, MODULE, dir, JSON.stringify(OPTIONS[way])],
    { stdio: ['ignore', 'pipe', stderr] },
  );
  children.push(child);
  let line = '';
  for await (const chunk of child.stdout!.setEncoding('utf8').iterator({ destroyOnReturn: false })) {
    line += chunk;
    if (line.endsWith('\n')) return { child, line: line.trim() };
  }
  throw new Error('the holder ended before it held the lock');
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

function refusal(way: LockWay): HoldfastError {
  try {
    lockFolder(dir, OPTIONS[way]).release();
  } catch (error) {
    if (error instanceof HoldfastError) return error;
    throw error;
  }
  throw new Error(`the folder could be locked by ${way} although it was held`);
}

const assertLocked = (error: HoldfastError, pid: number | undefined): void => {
  assert.is(error.code, 'LOCKED');
  assert.match(error.message, new RegExp(`held by process ${pid}\\b`));
  assert.ok(error.message.includes(dir), 'the message names the folder');
  assert.ok(error.details.remedy, 'the message names a remedy');
};

for (const way of ways) {
  const contract = suite(`lock by ${way}`);
  contract.before.each(newFolder);
  contract.after.each(cleanUp);

  contract('is taken, released, and taken again', () => {
    for (let round = 0; round < 3; round++) {
      const lock = lockFolder(dir, OPTIONS[way]);
      assert.is(lock.way, way);
      lock.release();
      lock.release();
    }
  });

  contract('a late second release does not free the next holder', () => {
    const first = lockFolder(dir, OPTIONS[way]);
    first.release();
    const second = lockFolder(dir, OPTIONS[way]);
    first.release();
    assertLocked(refusal(way), process.pid);
    second.release();
  });

  contract('releasing with remove leaves an empty folder, which can be locked anew', () => {
    lockFolder(dir, OPTIONS[way]).release({ remove: true });
    assert.equal(readdirSync(dir), []);
    lockFolder(dir, OPTIONS[way]).release();
  });

  contract('leaves nothing in the folder but lock entries', () => {
    lockFolder(dir, OPTIONS[way]).release();
    assert.equal(
      readdirSync(dir).filter((name) => !isLockEntry(name)),
      [],
    );
    for (const name of ['data', 'journal', 'meta', 'locks', 'lock.txt']) assert.not(isLockEntry(name));
  });

  contract('ends with SIGKILL of the holder', async () => {
    const { child } = await holder(way);
    assertLocked(refusal(way), child.pid);
    await kill(child);
    lockFolder(dir, OPTIONS[way]).release();
  });

  contract('does not live on in a child of the holder', async () => {
    // The child outlives its parent; only an inherited descriptor could keep the lock.
    const { child, line } = await holder(
      way,
      `const sleeper = spawn('sleep', ['60'], { stdio: 'inherit', detached: true });
       sleeper.unref();
       line = String(sleeper.pid);`,
    );
    const sleeper = Number(line);
    try {
      await kill(child);
      process.kill(sleeper, 0);
      lockFolder(dir, OPTIONS[way]).release();
    } finally {
      process.kill(sleeper, 'SIGKILL');
    }
  });

  contract('of many processes that take it over from a dead one, one wins', async () => {
    const dead = await holder(way);
    await kill(dead.child);
    const attempts = await Promise.allSettled([1, 2, 3, 4].map(() => holder(way, '', 'ignore')));
    assert.is(attempts.filter((attempt) => attempt.status === 'fulfilled').length, 1);
  });

  contract('what an earlier holder or a power cut left in the file does no harm', () => {
    for (const text of ['', '{', 'null', '[]', '{"pid":-1}', '{"pid":"1"}', '\0\0\0\0', '{"pid":1,"startTime":7}']) {
      writeFileSync(join(dir, 'lock'), text);
      lockFolder(dir, OPTIONS[way]).release();
    }
  });

  contract('a folder that does not exist or is a file is refused with its path', () => {
    dir = join(dir, 'missing');
    assert.is(refusal(way).code, 'IO_ERROR');
    writeFileSync(dir, '');
    const error = refusal(way);
    assert.is(error.code, 'IO_ERROR');
    assert.ok(error.message.includes(dir));
  });

  contract.run();
}

const across = suite('lock across ways');
across.before.each(newFolder);
across.after.each(cleanUp);

for (const first of ways) {
  for (const second of ways) {
    across(`held by ${first}: an opener by ${second} is refused, in this process and from another`, async () => {
      const lock = lockFolder(dir, OPTIONS[first]);
      assertLocked(refusal(second), process.pid);
      lock.release();
      const { child, line } = await holder(first);
      assert.is(line, first);
      assertLocked(refusal(second), child.pid);
      await kill(child);
      lockFolder(dir, OPTIONS[second]).release();
    });
  }
}

/** Locks and releases over and over; says how often it held the folder, and fails when somebody else was inside. */
async function contender(way: LockWay, rounds: number): Promise<number> {
  const program = `
    import { mkdirSync, rmdirSync } from 'node:fs';
    const { lockFolder } = await import(process.argv[1]);
    const [dir, options, rounds] = [process.argv[2], JSON.parse(process.argv[3]), Number(process.argv[4])];
    let held = 0;
    while (held < rounds) {
      let lock;
      try {
        lock = lockFolder(dir, options);
      } catch (error) {
        if (error.code !== 'LOCKED') throw error;
        continue;
      }
      mkdirSync(dir + '/inside');
      rmdirSync(dir + '/inside');
      lock.release({ remove: ++held % 3 === 0 });
    }
    console.log(held);`;
  const args = ['--input-type=module', '-e', program, MODULE, dir, JSON.stringify(OPTIONS[way]), String(rounds)];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
  await once(child, 'close');
  return Number(text);
}

across('contenders of all ways, some of which delete the files as they leave, are never inside together', async () => {
  const held = await Promise.all([...ways, ...ways].map((way) => contender(way, 40)));
  assert.equal(
    held,
    held.map(() => 40),
  );
});

across('a file that is deleted between opening and locking is not taken for the lock', () => {
  if (!ways.includes('flock')) return;
  const program = join(dir, 'slow-flock');
  writeFileSync(program, `#!/bin/sh\n[ -e ${dir}/once ] || { rm ${dir}/lock; touch ${dir}/once; }\nexec flock "$@"\n`);
  chmodSync(program, 0o755);
  const lock = lockFolder(dir, { native: false, flockProgram: program });
  assert.ok(readdirSync(dir).includes('once'));
  for (const way of ways) assertLocked(refusal(way), process.pid);
  lock.release();
});

across('HOLDFAST_NATIVE=off leaves the addon aside', () => {
  const program = `import(process.argv[1]).then(({ lockFolder }) => console.log(lockFolder(process.argv[2]).way));`;
  const child = spawnSync(process.execPath, ['-e', program, MODULE, dir], {
    env: { ...process.env, HOLDFAST_NATIVE: 'off' },
    encoding: 'utf8',
  });
  assert.is.not(child.stdout.trim(), 'addon');
  assert.ok((ways as string[]).includes(child.stdout.trim()), child.stderr);
});

across.run();

const claims = suite('lock by claim: whose death cannot be seen, and whose can');
claims.before.each(newFolder);
claims.after.each(cleanUp);

const claimOf = (changes: object): void => {
  writeFileSync(join(dir, 'lock.claim-x'), JSON.stringify({ ...ownIdentity(), ...changes }));
};

claims('another host: refused, and told which file to delete', () => {
  claimOf({ host: 'elsewhere', bootId: 'another' });
  for (const way of ways) {
    const error = refusal(way);
    assert.is(error.code, 'LOCKED');
    assert.match(error.message, /on host elsewhere/);
    assert.ok(error.message.includes(`delete ${join(dir, 'lock.claim-x')}`));
  }
  rmSync(join(dir, 'lock.claim-x'));
  for (const way of ways) lockFolder(dir, OPTIONS[way]).release();
});

claims('another pid namespace of this host: refused', () => {
  claimOf({ pidSpace: 'pid:[1]' });
  for (const way of ways) assert.is(refusal(way).code, 'LOCKED');
});

claims('the same host before its last boot: taken over', () => {
  claimOf({ bootId: 'another' });
  for (const way of ways) lockFolder(dir, OPTIONS[way]).release();
});

claims('a pid that was given to another process: taken over', () => {
  claimOf({ startTime: '1' });
  for (const way of ways) lockFolder(dir, OPTIONS[way]).release();
});

claims('a zombie holds nothing', async () => {
  // The shell's child ends at once and is never asked for.
  const parent = spawn('sh', ['-c', 'sleep 0 & echo $!; exec sleep 60'], { stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(parent);
  const [chunk] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(chunk.toString());
  const fields = (): string[] =>
    readFileSync(`/proc/${pid}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ');
  while (fields()[0] !== 'Z') await new Promise((resolve) => setTimeout(resolve, 5));
  claimOf({ pid, startTime: fields()[19] });
  lockFolder(dir, OPTIONS.claim).release();
});

claims('the next holder clears away claims of the dead, and drafts', () => {
  claimOf({ startTime: '1' });
  writeFileSync(join(dir, 'lock.claim-empty'), '');
  writeFileSync(join(dir, 'lock.draft-y'), 'half');
  const lock = lockFolder(dir, OPTIONS.claim);
  const names = readdirSync(dir).filter((name) => name !== 'lock');
  assert.is(names.length, 1);
  assert.not(['lock.claim-x', 'lock.claim-empty', 'lock.draft-y'].includes(names[0]!));
  assertLocked(refusal('claim'), process.pid);
  lock.release();
});

claims('a rival that claims between the look and the claim is seen', () => {
  // The file system is changed under the code, at the instant in question.
  const rename = fs.renameSync;
  let times = 0;
  fs.renameSync = (from, to) => {
    if (times++ === 0) claimOf({});
    rename(from, to);
  };
  syncBuiltinESMExports();
  try {
    assertLocked(refusal('claim'), process.pid);
  } finally {
    fs.renameSync = rename;
    syncBuiltinESMExports();
  }
  assert.is(times, 1);
  assert.equal(readdirSync(dir).sort(), ['lock', 'lock.claim-x']);
});

claims.run();

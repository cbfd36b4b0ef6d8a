/** How long the loop stays awake, by a clock and a scheduler of the test's own. */
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { AwakeTime, WINDOW_MS } from '../../src/storage/awake-time.ts';
import { RunDelay } from '../../src/storage/run-delay.ts';

const test = suite('awake time');

/** Time in which the thread waits for a core for that share. */
function play(): { time: AwakeTime; run: (ms: number, share: (nowMs: number) => number) => number } {
  const time = new AwakeTime(0.2, 0.05);
  let nowMs = 0;
  let waitedMs = 0;
  const run = (ms: number, share: (nowMs: number) => number): number => {
    let longMs = 0;
    for (const endMs = nowMs + ms; nowMs < endMs; nowMs++) {
      waitedMs += share(nowMs);
      if (time.isDue(nowMs)) time.look(nowMs, waitedMs);
      if (time.ms === 0.2) longMs++;
    }
    return longMs / ms;
  };
  return { time, run };
}

test('long where there is a core to spare', () => {
  const { run } = play();
  assert.is(
    run(60_000, () => 0.1),
    1,
  );
});

test('short within two windows where there is none; trials of the long one become rare', () => {
  const { time, run } = play();
  run(2 * WINDOW_MS + 1, () => 0.5);
  assert.is(time.ms, 0.05);
  // It is crowded with the long time only, as where several nodes share a machine.
  const share = (): number => (time.ms === 0.2 ? 0.3 : 0.08);
  run(120_000, share);
  assert.ok(run(600_000, share) < 0.005);
});

test('long again when there is room, and crowds of long ago are forgotten', () => {
  const { time, run } = play();
  run(10_000, () => 0.5);
  run(3000, () => 0.01);
  assert.is(time.ms, 0.2);
  run(100_000, () => 0.01);
  run(1000, () => 0.5);
  assert.is(time.ms, 0.05);
  run(1500, () => 0.01);
  assert.is(time.ms, 0.2);
});

test('what was while it slept says nothing', () => {
  const time = new AwakeTime(0.2, 0.05);
  time.look(0, 0);
  time.look(5000, 4000);
  assert.is(time.ms, 0.2);
});

test('the scheduler tells how long a thread waited', () => {
  const delay = new RunDelay();
  const before = delay.readMs();
  assert.type(before, 'number');
  const endMs = performance.now() + 20;
  while (performance.now() < endMs);
  assert.ok(delay.readMs()! >= before!);
  delay.close();
  assert.is(delay.readMs(), null);
});

test.run();

/**
 * The crash matrix once, each row with its first variants, on one cluster; and that it can fail. More of it:
 * `npm run test:matrix`.
 */
// deadline: 400 s
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Matrix } from './matrix.ts';
import { playRow } from './play-row.ts';
import { ROWS, type Row } from './rows.ts';

async function withMatrix(work: (matrix: Matrix) => Promise<void>): Promise<void> {
  const matrix = await Matrix.start();
  try {
    await work(matrix);
  } catch (error) {
    console.log(matrix.cluster.log().split('\n').slice(-120).join('\n'));
    throw error;
  } finally {
    await matrix.stop();
  }
}

const rowOf = (id: string): Row => ROWS.find((one) => one.id === id)!;
const test = suite('crash matrix');

test('every row of the matrix', () =>
  withMatrix(async (matrix) => {
    for (const row of ROWS) {
      const result = await playRow(matrix, row, 'quick');
      const { id, text, fired, longestWriteMs } = result;
      console.log(`# ${id}  ${text}: fired ${fired}, the longest write took ${longestWriteMs} ms`);
      assert.is(result.wrong, null, `${id} ${text}`);
    }
    await matrix.finish();
    const { old, new: done } = matrix.shots.outcomes;
    console.log(`# writes that were not answered and not repeated: ${old} old, ${done} new`);
    assert.ok(old + done > 0, 'no writer was ever left without an answer');
  }));

test('a shadow copy that is wrong is noticed', () =>
  withMatrix(async (matrix) => {
    matrix.load.spoil();
    const { wrong } = await playRow(matrix, rowOf('C-6'), 'quick');
    assert.match(String(wrong), /lane \d/);
  }));

test('a row whose step is not reached is wrong', () =>
  withMatrix(async (matrix) => {
    matrix.patienceMs = 1000;
    // A backup that stays one is not promoted.
    const row: Row = { id: 'C-0', text: 'never', variants: [{ play: 'backup', point: 'promote:won' }] };
    const { wrong, fired } = await playRow(matrix, row, 'quick');
    assert.match(String(wrong), /promote:won did not end [ab]/);
    assert.is(fired, 0);
  }));

test.run();

/**
 * The crash matrix again and again, with all variants of each row:
 *
 *     npm run test:matrix -- [--rounds N] [--rows C-3,C-11] [--coordinator embedded | etcd] [--json]
 *
 * Each row is played twice per round, with the roles of the nodes as they are and swapped. Exit code 1 when a row is
 * wrong, or the replicas differ in the end.
 */
import { parseArgs } from 'node:util';
import { printTable } from '../../src/cli/output.ts';
import { admin } from '../../src/client/admin.ts';
import { Matrix, VOLUME, other } from './matrix.ts';
import { type RowResult, playRow } from './play-row.ts';
import { ROWS, type Row } from './rows.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '1' },
    rows: { type: 'string' },
    coordinator: { type: 'string', default: 'embedded' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
if (!Number.isSafeInteger(rounds) || rounds < 1) throw new Error(`--rounds ${values.rounds} is no number of rounds`);
if (values.coordinator !== 'embedded' && values.coordinator !== 'etcd')
  throw new Error('--coordinator is embedded or etcd');

function chosen(): readonly Row[] {
  if (values.rows === undefined) return ROWS;
  return values.rows.split(',').map((id) => {
    const row = ROWS.find((one) => one.id === id.trim());
    if (row === undefined) throw new Error(`there is no row ${id}: ${ROWS.map((one) => one.id).join(', ')}`);
    return row;
  });
}

const told = (result: RowResult, by: object): void => {
  if (values.json) process.stdout.write(`${JSON.stringify({ ...result, ...by })}\n`);
  else
    process.stderr.write(`${result.id.padEnd(5)} ${result.wrong ?? 'ok'}  ${(result.elapsedMs / 1000).toFixed(1)} s\n`);
};

// Its end ends the processes that it has started.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

const rows = chosen();
const results: RowResult[] = [];
const matrix = await Matrix.start(values.coordinator);
let failure: string | null = null;
try {
  play: for (let round = 1; round <= rounds; round++) {
    for (const row of rows) {
      for (const primary of ['a', 'b']) {
        const now = await matrix.primary();
        if (now !== primary) {
          await admin(matrix.cluster.slot(now).address, { op: 'resign', volume: VOLUME }, { timeoutMs: 20_000 });
          await matrix.untilPrimary(other(now));
          await matrix.untilSafe();
        }
        const result = await playRow(matrix, row, 'all');
        results.push(result);
        told(result, { round, primary });
        if (result.wrong !== null) break play;
      }
    }
  }
  if (results.every(({ wrong }) => wrong === null)) await matrix.finish();
} catch (error) {
  failure = (error as Error).message;
} finally {
  if (failure !== null || results.some(({ wrong }) => wrong !== null))
    process.stderr.write(`${matrix.cluster.log().split('\n').slice(-150).join('\n')}\n`);
  await matrix.stop();
}

if (!values.json) {
  printTable(
    ['row', 'what crashes', 'fired', 'longest write', 'result'],
    rows.map(({ id, text }) => {
      const own = results.filter((one) => one.id === id);
      const sum = own.reduce((fired, one) => fired + one.fired, 0);
      const longest = Math.max(0, ...own.map(({ longestWriteMs }) => longestWriteMs));
      const wrong = own.find((one) => one.wrong !== null)?.wrong;
      return [id, text, sum, `${longest} ms`, own.length === 0 ? 'not played' : (wrong ?? 'ok')];
    }),
  );
}
const bad = results.filter(({ wrong }) => wrong !== null).length + (failure === null ? 0 : 1);
const fired = results.reduce((sum, one) => sum + one.fired, 0);
if (failure !== null) process.stderr.write(`in the end: ${failure}\n`);
process.stderr.write(`${results.length} rows played, ${fired} crashes, ${bad} wrong\n`);
process.exitCode = bad > 0 || results.length === 0 ? 1 : 0;

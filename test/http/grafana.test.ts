/**
 * The board for Grafana, without Grafana: each expression of its panels is asked of a real Prometheus that scrapes a real
 * cluster under load as docs/monitoring.md says, and each variable finds its values.
 */
// deadline: 120 s
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { pause } from '../../src/cli/cluster.ts';
import { connect } from '../../src/client/index.ts';
import { freePorts } from '../support/free-ports.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { temporaryFolder } from '../support/server-process.ts';

interface Panel {
  title: string;
  type: string;
  gridPos: { x: number; y: number; w: number; h: number };
  datasource: { type: string; uid: string };
  targets: Array<{ expr: string; refId: string }>;
}
interface Variable {
  name: string;
  type: string;
  query: string;
}
interface Board {
  title: string;
  schemaVersion: number;
  templating: { list: Variable[] };
  panels: Panel[];
}

const DOCS = join(import.meta.dirname, '../../../docs');
/** Grafana's default for a scrape of 1 s: four of them. */
const RATE_INTERVAL = '4s';
const PATIENCE_MS = 40_000;
/** Shown while a replica is brought in, or after something has gone wrong, and empty otherwise. */
const MAY_BE_EMPTY = ['behind the primary', 'reintegration'];

const test = suite('board for Grafana');
const board = JSON.parse(readFileSync(join(DOCS, 'monitoring/grafana.json'), 'utf8')) as Board;

test('it has what an import asks for, and no panel lies on another', () => {
  assert.ok(board.title.length > 0 && board.schemaVersion >= 36);
  const [source, ...others] = board.templating.list;
  assert.equal([source!.type, source!.query], ['datasource', 'prometheus']);
  for (const { query } of others) assert.match(query, /^label_values\(\w+, \w+\)$/);
  const cells = new Set<string>();
  for (const { title, type, gridPos, datasource, targets } of board.panels) {
    assert.ok(title.length > 0 && ['stat', 'timeseries'].includes(type), title);
    assert.equal(datasource, { type: 'prometheus', uid: `\${${source!.name}}` });
    assert.is(new Set(targets.map(({ refId }) => refId)).size, targets.length, `${title}: targets of one name`);
    assert.ok(gridPos.x + gridPos.w <= 24, `${title} is wider than the board`);
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        assert.not(cells.has(`${x},${y}`), `${title} lies on another panel`);
        cells.add(`${x},${y}`);
      }
    }
    for (const { expr } of targets) {
      const used = [...expr.matchAll(/\$(?:\{(\w+)\}|(\w+))/g)].map(([, braced, plain]) => braced ?? plain);
      const known = [...board.templating.list.map(({ name }) => name), '__rate_interval'];
      assert.equal(
        used.filter((name) => !known.includes(name!)),
        [],
        title,
      );
    }
  }
});

/** The config of docs/monitoring.md, for these targets, in a hurry. */
function configFor(targets: string[]): string {
  const page = readFileSync(join(DOCS, 'monitoring.md'), 'utf8');
  const yaml = /```yaml\n(scrape_configs:\n[\s\S]*?)```/.exec(page)![1]!;
  const hurried = yaml.replace(/targets: \[[^\]]*\]/, `targets: [${targets.map((one) => `'${one}'`).join(', ')}]`);
  assert.is.not(hurried, yaml);
  return `global: { scrape_interval: 1s, scrape_timeout: 1s }\n${hurried.replace(/scrape_interval: \w+/g, 'scrape_interval: 1s')}`;
}

class Prometheus {
  readonly url: string;
  private readonly child: ChildProcess;

  constructor(port: number, config: string) {
    const dir = temporaryFolder();
    const file = join(dir, 'prometheus.yml');
    writeFileSync(file, config);
    this.url = `http://127.0.0.1:${port}`;
    const where = [`--web.listen-address=127.0.0.1:${port}`, `--storage.tsdb.path=${join(dir, 'data')}`];
    this.child = spawn('prometheus', [`--config.file=${file}`, ...where, '--log.level=error'], { stdio: 'ignore' });
    process.once('exit', () => this.child.kill('SIGKILL'));
  }

  async get<T>(path: string, query: Record<string, string>): Promise<T[]> {
    const response = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(query).toString()}`).catch(
      () => null,
    );
    if (response === null || response.status === 503) return [];
    const body = (await response.json()) as { status: string; error?: string; data: T[] | { result: T[] } };
    assert.is(body.status, 'success', `${JSON.stringify(query)}: ${body.error}`);
    return Array.isArray(body.data) ? body.data : body.data.result;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once('exit', resolve));
    this.child.kill('SIGTERM');
    await ended;
  }
}

if (spawnSync('prometheus', ['--version']).status !== 0) process.stdout.write('# skip: prometheus is not installed\n');
else {
  test('every panel and every variable has something to show', async () => {
    const http = await HttpCluster.start(['a', 'b']);
    await http.cluster.create('disk', '8MiB', 2, '--allow-sparse');
    await http.cluster.create('keys', '16MiB', 2, '--allow-sparse', '--kind', 'kv');
    await http.cluster.untilSafe();
    const [port] = await freePorts(1);
    const targets = ['a', 'b'].map((node) => http.url(node, '').replace('http://', ''));
    const prometheus = new Prometheus(port!, configFor(targets));
    const volume = await connect(http.cluster.url('disk'));
    let over = false;
    const load = (async (): Promise<void> => {
      for (let i = 0; !over; i++) {
        await volume.write((i % 100) * 4096, new Uint8Array(4096).fill(i));
        await volume.read((i % 100) * 4096, 4096);
        await pause(5);
      }
    })();

    const missing = new Map<string, string>();
    for (const { title, targets: asked } of board.panels) {
      if (MAY_BE_EMPTY.includes(title)) continue;
      for (const { expr } of asked) missing.set(expr, title);
    }
    const labels = board.templating.list.slice(1).map(({ query }) => /\((\w+), (\w+)\)/.exec(query)!);
    const endMs = performance.now() + PATIENCE_MS;
    while (missing.size > 0 && performance.now() < endMs) {
      for (const expr of missing.keys()) {
        const query = expr.replaceAll('$__rate_interval', RATE_INTERVAL).replaceAll(/\$\w+/g, '.*');
        const result = await prometheus.get<{ value: [number, string] }>('query', { query });
        // No number at all is a quantile of nothing.
        if (result.some(({ value }) => value[1] !== 'NaN')) missing.delete(expr);
      }
      await pause(200);
    }
    assert.equal([...missing], [], 'expressions without a result, and their panels');
    for (const [, metric, label] of labels) {
      const found = await prometheus.get<string>(`label/${label}/values`, { 'match[]': metric! });
      assert.equal(found, label === 'node' ? ['a', 'b'] : ['disk', 'keys'], `label_values(${metric}, ${label})`);
    }
    // Those that are left out above are right as expressions at least.
    for (const { targets: asked } of board.panels.filter(({ title }) => MAY_BE_EMPTY.includes(title)))
      for (const { expr } of asked) await prometheus.get('query', { query: expr.replaceAll(/\$\w+/g, '.*') });
    over = true;
    await load;
    await volume.close();
    await prometheus.stop();
    await http.cluster.stop();
  });
}

test.run();

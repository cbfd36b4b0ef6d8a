/**
 * Pictures of the dashboard for the documentation, of a real cluster in a real Chromium: healthy, degraded after its
 * primary was killed, and while that is brought back; on a desk, in the dark, on a phone.
 *
 *     npm run show:dashboard            into docs/screenshots
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connect } from '../../src/client/index.ts';
import { CHROMIUM, DashboardPage, startBrowser } from '../support/dashboard-page.ts';
import { HttpCluster } from '../support/http-cluster.ts';
import { until } from './support.ts';

const OUT = join('docs', 'screenshots');
const MOST_BYTES = 200_000;
const LOOKS = {
  desktop: { width: 1280, height: 900, scheme: 'light' },
  'desktop-dark': { width: 1280, height: 900, scheme: 'dark' },
  phone: { width: 360, height: 740, scheme: 'light' },
} as const;
/** A page is longer than what is worth a picture. */
const MOST_HEIGHT = 1500;
/** What the missing node lacks, in pieces all over the volume. */
const PIECES = 110;

async function take(pages: Map<string, DashboardPage>, state: string): Promise<void> {
  await Promise.all(
    [...pages].map(async ([name, { page }]) => {
      const [width, height] = [page.viewportSize()!.width, await heightOf(pages.get(name)!)];
      const bytes = await page.screenshot({ fullPage: true, clip: { x: 0, y: 0, width, height } });
      if (bytes.length > MOST_BYTES) throw new Error(`${state}-${name}.png has ${bytes.length} bytes`);
      writeFileSync(join(OUT, `${state}-${name}.png`), bytes);
      process.stdout.write(`${join(OUT, `${state}-${name}.png`)}: ${bytes.length} bytes\n`);
    }),
  );
}

/** A part of the page that lies below what the pictures show. */
async function takePart(page: DashboardPage, heading: string, file: string): Promise<void> {
  const bytes = await page.page.locator(`section[aria-labelledby=${heading}]`).screenshot();
  if (bytes.length > MOST_BYTES) throw new Error(`${file} has ${bytes.length} bytes`);
  writeFileSync(join(OUT, file), bytes);
  process.stdout.write(`${join(OUT, file)}: ${bytes.length} bytes\n`);
}

async function heightOf(page: DashboardPage): Promise<number> {
  return Math.min(MOST_HEIGHT, await page.value<number>('document.documentElement.scrollHeight'));
}

async function show(): Promise<void> {
  mkdirSync(OUT, { recursive: true });
  const http = await HttpCluster.start(['a', 'b', 'c'], '--enable-faults', '--sync-rate', '8MiB');
  const { cluster } = http;
  await cluster.create('vm1', '256MiB', 3, '--allow-sparse');
  await cluster.create('sessions', '64MiB', 3, '--allow-sparse', '--kind', 'kv');
  await cluster.untilSafe();
  const former = await cluster.primary('vm1');
  const volume = await connect(cluster.url('vm1'));
  let writing = true;
  let written = 0;
  // Some load, the same at each moment; what is written is spread over a part of the volume in pieces of 64 KiB.
  const load = async (): Promise<void> => {
    for (; writing; written++) {
      const piece = (written * 7) % (PIECES * 8);
      await volume.write(piece * 2 * 131_072, Buffer.alloc(65_536, 1 + (written % 255)));
      await volume.read(((written * 13) % 1024) * 131_072, 16_384);
      await new Promise((resolve) => setTimeout(resolve, 4));
    }
  };
  const writer = load();
  const browser = await startBrowser();
  const pages = new Map<string, DashboardPage>();
  const open = async (node: string): Promise<void> => {
    for (const [name, look] of Object.entries(LOOKS)) {
      pages.set(name, await DashboardPage.open(browser, http.url(node, '/'), look));
    }
  };
  const all = (expression: string, what: string): Promise<unknown> =>
    Promise.all([...pages.values()].map((page) => page.eventually(expression, what)));
  // A node that becomes primary has the map; who that will be is not known before.
  await open(former);
  await all(`document.body.dataset.verdict === 'safe'`, 'a safe cluster');
  const before = written;
  await until(() => (written > before + 1500 ? true : undefined), 'some load');
  await take(pages, 'healthy');

  for (const page of pages.values()) await page.close();
  await cluster.must('fault', 'kill', '--node', former);
  await cluster.ended(former);
  const others = (primary: string): boolean => primary !== '' && primary !== former;
  const view = await cluster.until(
    ({ volumes }) => volumes.every(({ primary, verdict }) => others(primary) && verdict === 'degraded'),
    'a new primary',
  );
  await open(view.volumes.find((one) => one.volume === 'vm1')!.primary);
  const after = written;
  await until(() => (written > after + 900 ? true : undefined), 'writes that the missing node lacks');
  await all(`document.querySelector('.map[data-volume=vm1]') && document.querySelector('#events .failover')`, 'a map');
  await take(pages, 'degraded');
  await takePart(pages.get('desktop')!, 'load-heading', 'degraded-load.png');
  await takePart(pages.get('desktop')!, 'events-heading', 'degraded-events.png');

  writing = false;
  await writer;
  const map = `Number(document.querySelector('.map[data-volume=vm1]').dataset.dirtyBlocks)`;
  const most = await [...pages.values()][0]!.value<number>(map);
  await cluster.restart(former);
  await all(`${map} > 0 && ${map} < ${most * 0.7}`, 'a map that empties');
  await take(pages, 'reintegrating');
  await all(`document.body.dataset.verdict === 'safe'`, 'a safe cluster again');
  await volume.close();
  await browser.close();
  await cluster.stop();
}

if (CHROMIUM === undefined) {
  process.stdout.write('chromium is not installed: apt install chromium\n');
  process.exitCode = 1;
} else await show();

/**
 * `npm run show:dashboard`: the dashboard of three nodes under load, in three states, as pictures in docs/screenshots.
 * The reintegration is held to a few MiB a second, so that there is something to see.
 */
import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import type { Browser } from 'playwright-core';
import { connect } from '../../src/client/index.ts';
import { chromiumPath, openBrowser } from '../support/browser.ts';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';
import { note, pause } from './support.ts';

const NODES = ['a', 'b', 'c'];
const FOLDER = fileURLToPath(new URL('../../../docs/screenshots', import.meta.url));
const SIZE_MIB = 256;
const BLOCK = 4096;
const LOOKS = [
  { name: 'light', colorScheme: 'light', viewport: { width: 1200, height: 900 } },
  { name: 'dark', colorScheme: 'dark', viewport: { width: 1200, height: 900 } },
  { name: 'phone', colorScheme: 'light', viewport: { width: 360, height: 740 } },
] as const;

async function picture(browser: Browser, url: string, state: string, seconds: number): Promise<void> {
  const pages = await Promise.all(
    LOOKS.map(async ({ name, ...look }) => {
      const page = await browser.newPage(look);
      await page.goto(url);
      return { name, page };
    }),
  );
  await pause(seconds * 1000);
  for (const { name, page } of pages) {
    const path = join(FOLDER, `${state}-${name}.png`);
    await page.screenshot({ path });
    note(`${path}: ${Math.ceil(statSync(path).size / 1024)} KiB`);
    await page.close();
  }
}

if (chromiumPath() === null) throw new Error('there is no chromium (Debian: chromium)');
mkdirSync(FOLDER, { recursive: true });
const cluster = await TestCluster.start([]);
let browser: Browser | null = null;
try {
  const ports = await freePorts(NODES.length);
  for (const [i, name] of NODES.entries())
    await cluster.add(name, '--http', `127.0.0.1:${ports[i]}`, '--sync-rate', '4MiB');
  await cluster.create('vm1', `${SIZE_MIB}MiB`, NODES.length, '--allow-sparse');
  await cluster.create('keys', '64MiB', NODES.length, '--allow-sparse', '--kind', 'kv');
  await cluster.until(({ verdict, volumes }) => verdict === 'safe' && volumes.length === 2, 'both volumes');
  const primary = await cluster.primary('vm1');
  const url = `http://127.0.0.1:${ports[NODES.indexOf(primary)]}/`;
  const volume = await connect(cluster.url('vm1'));
  let over = false;
  let n = 1;
  const load = [0, 1].map(async () => {
    while (!over) {
      n = (n * 48_271) % 2_147_483_647;
      const offset = (n % ((SIZE_MIB * 1024 * 1024) / BLOCK)) * BLOCK;
      if (n % 3 === 0) await volume.write(offset, Buffer.alloc(BLOCK, n));
      else await volume.read(offset, BLOCK);
      await pause(2);
    }
  });
  browser = await openBrowser();
  await picture(browser, url, 'healthy', 20);
  const victim = NODES.find((name) => name !== primary)!;
  await cluster.kill(victim);
  for (let at = 0; at < 40; at++) await volume.write((at * 1_500_007) % 200_000_000, Buffer.alloc(1024 * 1024, at));
  await picture(browser, url, 'degraded', 6);
  await cluster.restart(victim);
  await picture(browser, url, 'reintegrating', 5);
  over = true;
  await Promise.all(load);
  await volume.close();
} finally {
  await browser?.close();
  await cluster.stop();
}

/** The dashboard in a real Chromium on a real cluster: a node is killed and comes back. */
// deadline: 240 s
import type { Browser, Page } from 'playwright-core';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { connect } from '../../src/client/index.ts';
import { chromiumPath, listen, openBrowser } from '../support/browser.ts';
import { TestCluster } from '../support/cluster.ts';
import { freePorts } from '../support/free-ports.ts';

const NODES = ['a', 'b'];
/** From the fault to the word on the page. */
const SEEN_MS = 2000;
const test = suite('dashboard');

async function withPage(
  work: (
    page: Page,
    cluster: TestCluster,
    complaints: string[],
    open: (scheme: 'light' | 'dark') => Promise<Page>,
  ) => Promise<void>,
): Promise<void> {
  const cluster = await TestCluster.start([]);
  let browser: Browser | null = null;
  try {
    const ports = await freePorts(NODES.length);
    for (const [i, name] of NODES.entries())
      await cluster.add(name, '--enable-faults', '--http', `127.0.0.1:${ports[i]}`);
    await cluster.create('disk', '64MiB', NODES.length, '--allow-sparse');
    await cluster.untilSafe();
    const primary = await cluster.primary('disk');
    const origin = `http://127.0.0.1:${ports[NODES.indexOf(primary)]}`;
    browser = await openBrowser();
    const complaints: string[] = [];
    const running = browser;
    const open = async (colorScheme: 'light' | 'dark'): Promise<Page> => {
      const page = await running.newPage({ colorScheme });
      listen(page, origin, complaints);
      await page.goto(`${origin}/`);
      return page;
    };
    await work(await open('light'), cluster, complaints, open);
  } finally {
    await browser?.close();
    await cluster.stop();
  }
}

const wordOf = (page: Page): Promise<string> => page.locator('#verdict-word').innerText();

/** Of texts on the ground that lies behind them: the least contrast, by WCAG's formula. */
function leastContrast(page: Page): Promise<number> {
  return page.evaluate(`(() => {
    const rgb = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
      .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4))
      .reduce((sum, one, i) => sum + one * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (one) => {
      for (let at = one; at; at = at.parentElement) {
        const color = rgb(getComputedStyle(at).backgroundColor);
        if (color.length === 3 || color[3] > 0) return color;
      }
      return [255, 255, 255];
    };
    const texts = ['#verdict-word', '#verdict-why', '#connection', 'h1', 'h2', 'th', 'td', '.state', 'figcaption', '#journal', 'select'];
    return Math.min(...texts.flatMap((what) => [...document.querySelectorAll(what)]).filter((one) => one.innerText).map((one) => {
      const [a, b] = [light(rgb(getComputedStyle(one).color)), light(ground(one))];
      return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    }));
  })()`);
}

if (chromiumPath() === null) console.log('# skip: chromium is not installed (Debian: chromium)');
else {
  test('a node is killed: seen within two seconds; it comes back: the map empties, and all is safe', () =>
    withPage(async (page, cluster, complaints, open) => {
      await page.getByText('SAFE').first().waitFor();
      assert.match(await wordOf(page), /SAFE/);
      await page.getByText('Live').waitFor();
      const primary = await cluster.primary('disk');
      const other = NODES.find((name) => name !== primary)!;
      const volume = await connect(cluster.url('disk'));
      await volume.write(0, Buffer.alloc(4096, 1));
      // On the page's own clock, from before the fault is asked for.
      const changed = page.evaluate<number>(`new Promise((resolve) => {
        const word = document.getElementById('verdict-word');
        const fromMs = performance.now();
        new MutationObserver(() => {
          if (!/DEGRADED/.test(word.textContent)) return;
          resolve(performance.now() - fromMs);
        }).observe(word, { childList: true, characterData: true, subtree: true });
      })`);
      await cluster.kill(other);
      const seenMs = await changed;
      console.log(`# seen on the page after ${Math.round(seenMs)} ms`);
      assert.ok(seenMs < SEEN_MS, `${seenMs} ms`);
      for (let block = 0; block < 3000; block++) await volume.write(block * 5 * 4096, Buffer.alloc(4096, block));
      // Each map with blocks that differ, and the one without, as the page has drawn them.
      await page.evaluate(`(() => {
        window.dirty = [];
        new MutationObserver((records) => {
          for (const { target } of records) window.dirty.push(Number(target.dataset.dirtyBlocks));
        }).observe(document.getElementById('heat-maps'), { subtree: true, attributes: true, attributeFilter: ['data-dirty-blocks'] });
      })()`);
      await page.locator('canvas.heat').waitFor();
      assert.match(await page.locator('#heat-maps').innerText(), /blocks .* differ/);
      await cluster.restart(other);
      await cluster.untilSafe();
      await page.getByText('Nothing differs any more.').waitFor();
      const dirty = await page.evaluate<number[]>('window.dirty');
      assert.ok(Math.max(...dirty) >= 2900, `at most ${Math.max(...dirty)} blocks`);
      assert.is(dirty.at(-1), 0);
      await page.locator('#verdict-word', { hasText: 'SAFE' }).waitFor();
      const events = await page.locator('#events').innerText();
      assert.match(events, new RegExp(`${other} is lost`));
      assert.match(events, new RegExp(`${other} is in sync`));
      assert.match(await page.locator('#volumes').innerText(), /disk: 64 MiB, epoch \d+/);
      assert.ok((await page.locator('#chart-rates canvas').count()) === 1);
      // By keyboard.
      const reached: string[] = [];
      for (let i = 0; i < 12; i++) {
        await page.keyboard.press('Tab');
        reached.push(await page.evaluate<string>('document.activeElement.id || document.activeElement.className'));
      }
      for (const control of ['skip', 'chart-volume', 'event-filter'])
        assert.ok(reached.includes(control), reached.join());
      // On a phone.
      await page.setViewportSize({ width: 360, height: 740 });
      const width = await page.evaluate<number>('document.documentElement.scrollWidth');
      assert.ok(width <= 360, `${width} pixels`);
      const dark = await open('dark');
      await dark.getByText('SAFE').first().waitFor();
      const contrasts = [await leastContrast(page), await leastContrast(dark)];
      console.log(`# least contrast, light and dark: ${contrasts.map((one) => one.toFixed(1)).join(', ')}`);
      assert.ok(Math.min(...contrasts) >= 4.5, contrasts.join());
      assert.equal(complaints, []);
      // The node of the page goes: said at once, and over when it is back.
      await cluster.kill(primary);
      await page.locator('#connection.lost').waitFor();
      await cluster.restart(primary);
      await page.getByText('Live').waitFor();
      await volume.close();
    }));
}

test.run();

/**
 * A node's dashboard in a real Chromium: what it shows, which requests left it, and what it complained of.
 *
 * Expressions are texts that run in the page, whose policy stays as it is.
 */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContext, type Page, chromium } from 'playwright-core';
import { pause } from '../../src/cli/cluster.ts';

const PATHS = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];
const PATIENCE_MS = 20_000;
const POLL_MS = 20;
const ARGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** Undefined: there is none on this machine. */
export const CHROMIUM: string | undefined = PATHS.find((path) => existsSync(path));

/** With a profile of its own that is removed with it. */
export function startBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: CHROMIUM!, args: ARGS });
}

export interface Look {
  width?: number;
  height?: number;
  scheme?: 'light' | 'dark';
}

/** How each state of the page is noted, with the time of the page's own clock. */
const NOTE = `
  globalThis.noted = [];
  globalThis.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective + ' ' + event.blockedURI));
  document.addEventListener('DOMContentLoaded', () => {
    const note = () => {
      const { verdict, stream } = document.body.dataset;
      const last = noted.at(-1);
      if (last?.verdict !== verdict || last?.stream !== stream) noted.push({ atMs: Date.now(), verdict, stream });
    };
    new MutationObserver(note).observe(document.body, { attributes: true });
    note();
  });`;

export interface Noted {
  atMs: number;
  verdict: string;
  stream: string;
}

export class DashboardPage {
  readonly page: Page;
  /** Errors on the console, and those that nobody caught. */
  readonly problems: string[] = [];
  readonly requests: string[] = [];
  private readonly context: BrowserContext;

  private constructor(context: BrowserContext, page: Page) {
    this.context = context;
    this.page = page;
    context.on('request', (request) => this.requests.push(request.url()));
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') this.problems.push(message.text());
    });
    page.on('pageerror', (error) => this.problems.push(String(error)));
  }

  static async open(browser: Browser, url: string, look: Look = {}): Promise<DashboardPage> {
    const { width = 1280, height = 900, scheme = 'light' } = look;
    const context = await browser.newContext({
      viewport: { width, height },
      colorScheme: scheme,
      reducedMotion: 'reduce',
    });
    await context.addInitScript(NOTE);
    const dashboard = new DashboardPage(context, await context.newPage());
    await dashboard.page.goto(url);
    return dashboard;
  }

  value<T>(expression: string): Promise<T> {
    return this.page.evaluate(expression);
  }

  /** Waits until the expression is something. @returns that */
  async eventually<T>(expression: string, what: string): Promise<T> {
    const endMs = performance.now() + PATIENCE_MS;
    for (;;) {
      const value = await this.value<T>(expression);
      if (value) return value;
      if (performance.now() > endMs) {
        const text = await this.value<string>('document.body.innerText');
        throw new Error(`waited in vain for the page to show ${what}\n${text}\n${this.problems.join('\n')}`);
      }
      await pause(POLL_MS);
    }
  }

  untilVerdict(verdict: string): Promise<unknown> {
    return this.eventually(`document.body.dataset.verdict === '${verdict}'`, verdict);
  }

  noted(): Promise<Noted[]> {
    return this.value('noted');
  }

  close(): Promise<void> {
    return this.context.close();
  }
}

/**
 * The pages of docs as a tree: each is named by the index and by the README, each link leads somewhere, each picture is used.
 * And what reads the tutorials: that it would see an output that is not true any more.
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { fits, pageOf, stable, withoutStandstills } from '../support/tutorial.ts';

const ROOT = join(import.meta.dirname, '../../..');
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' }).map((path) => `docs/${path}`);
const pages = [...docs.filter((path) => path.endsWith('.md')), 'README.md', 'CONTRIBUTING.md', 'SECURITY.md'];

/** Links and pictures of a page that lead into the repository, without what stands in code. */
function linksOf(path: string): Array<{ file: string; anchor: string }> {
  const text = read(path)
    .replaceAll(/^```[^]*?^```$/gm, '')
    .replaceAll(/`[^`\n]*`/g, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map((match) => match[1]!)
    .filter((link) => !/^[a-z]+:/.test(link))
    .map((link) => {
      const [file, anchor = ''] = link.split('#') as [string, string?];
      return { file: file === '' ? path : join(dirname(path), file), anchor };
    });
}

/** As GitHub makes them of headings. */
function anchorsOf(path: string): string[] {
  const headings = read(path)
    .replaceAll(/^```[^]*?^```$/gm, '')
    .matchAll(/^#+ (.+)$/gm);
  return [...headings].map((match) =>
    match[1]!
      .toLowerCase()
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

const tree = suite('docs, the tree');

tree('each link leads to something that is there', () => {
  const findings = pages.flatMap((page) =>
    linksOf(page)
      .filter(({ file, anchor }) => {
        if (!existsSync(join(ROOT, file))) return true;
        return anchor !== '' && file.endsWith('.md') && !anchorsOf(file).includes(anchor);
      })
      .map(({ file, anchor }) => `${page}: ${file}${anchor === '' ? '' : `#${anchor}`} is not there`),
  );
  assert.is(findings.join('\n'), '');
});

for (const index of ['docs/README.md', 'README.md']) {
  tree(`${index} leads to every page`, () => {
    const named = linksOf(index).map(({ file }) => file);
    const lost = pages.filter((page) => {
      const folder = dirname(page);
      return page.startsWith('docs/') && page !== index && !named.includes(page) && !named.includes(folder);
    });
    assert.is(lost.join('\n'), '');
  });
}

tree('each picture is on a page', () => {
  const used = pages.flatMap((page) => linksOf(page).map(({ file }) => file));
  const pictures = docs.filter((path) => /\.(?:svg|png)$/.test(path) && !path.startsWith('docs/plots/'));
  assert.is(pictures.filter((path) => !used.includes(path)).join('\n'), '');
});

tree.run();

const player = suite('docs, what reads the tutorials');

player('commands, their machines, outputs, and what is not run', () => {
  const fence = '```';
  const page = pageOf(
    [
      `${fence}console`,
      '$ one \\',
      '    more',
      'said',
      'b$ cat > x <<END',
      '$ not a command',
      'END',
      fence,
      `${fence}sh`,
      '$ other',
      fence,
      `${fence}console no-test: no systemd here`,
      '$ systemctl',
      fence,
    ].join('\n'),
  );
  assert.equal(
    page.commands.map(({ machine, text, shown }) => [machine, text, shown]),
    [
      ['', 'one \\\n    more', ['said']],
      ['b', 'cat > x <<END\n$ not a command\nEND', []],
    ],
  );
  assert.equal(page.left, [{ line: 12, reason: 'no systemd here' }]);
  assert.throws(() => pageOf(`${fence}console\noutput\n${fence}`), /output without a command/);
});

player('what changes each time is let through, and nothing else', () => {
  assert.is(
    stable('│ a    │ 61.6 GiB │ 25005 │  at 3.5 MiB/s, 4 s'),
    stable('│ a │ 7.25 TiB │ 7 │ at 120 KiB/s, 80 ms'),
  );
  assert.is(stable('2026-11-23T13:25:50.901Z x (pid 7)'), stable('2027-01-01T00:00:00.000Z x (pid 12345)'));
  assert.is(stable('marks  monday at 1.34, up to 2.7'), stable('marks monday at 11.340, up to 3.12'));
  assert.is(stable('8251 operations in 2.0 s'), stable('7 operations in 3.0 s'));
  for (const [one, other] of [
    ['SAFE', 'DEGRADED'],
    ['at 8 MiB', 'at 9 MiB'],
    ['demo (64 MiB)', 'demo (128 MiB)'],
    ['│ a │ b │', '│ b │ a │'],
    ['20971520 bytes', '20971521 bytes'],
    ['wrote 4', 'wrote 5'],
  ] as const) {
    assert.is.not(stable(one), stable(other));
  }
});

player('lines that are left out are any lines, others are compared', () => {
  assert.ok(fits(['a', '...', 'd'], ['a', 'b', 'c', 'd']));
  assert.ok(fits(['...'], []));
  assert.not.ok(fits(['a', '...', 'd'], ['a', 'b']));
  assert.not.ok(fits(['a'], ['a', 'b']));
  assert.not.ok(fits(['a', 'b'], ['a']));
  assert.not.ok(fits([], ['an error']));
});

player('a member that stood still for a moment is not on the page; one that was lost otherwise is', () => {
  const [syncing, inSync] = ['b  member-syncing  demo: a is being brought', 'b  member-in-sync  demo: a is in sync'];
  const lost = (why: string): string => `b  member-lost  demo: a is lost: ${why}`;
  assert.equal(withoutStandstills([syncing, lost('silent for 813 ms'), syncing, inSync]), [syncing, inSync]);
  const ended = [syncing, lost('the connection ended'), syncing, inSync];
  assert.equal(withoutStandstills(ended), ended);
});

player.run();

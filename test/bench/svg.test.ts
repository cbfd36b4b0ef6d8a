import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { barChart, compact, lineChart, type BarChart, type LineChart } from '../../bench/load/svg.ts';

const lines: LineChart = {
  title: 'Reads & "writes" <4 KiB>',
  subtitle: "the machine's own",
  xLabel: 'clients',
  yLabel: 'operations/s',
  xScale: 'log',
  yScale: 'log',
  series: [
    {
      name: 'depth 1',
      points: [
        { x: 1, y: 100 },
        { x: 4, y: 350, low: 300, high: 400 },
        { x: 64, y: 10_000 },
      ],
    },
    {
      name: 'depth <16>',
      points: [
        { x: 64, y: 90_000 },
        { x: 1, y: 2000 },
      ],
    },
  ],
};

const bars: BarChart = {
  title: 'Bars',
  yLabel: 'writes/s',
  yScale: 'linear',
  series: ['a', 'b'],
  groups: [
    { name: 'one', values: [{ y: 25 }, { y: 50, low: 40, high: 100 }] },
    { name: 'two', values: [null, { y: 0 }] },
  ],
};

/** Well-formedness, as far as our own output can go wrong: tags balance, attributes are quoted, text is escaped. */
function checkXml(svg: string): void {
  const stack: string[] = [];
  const withoutTags = svg.replace(
    /<(\/?)([a-z]+)((?:\s+[a-zA-Z:-]+\d*="[^"<]*")*)\s*(\/?)>/g,
    (_all, closing, name, _attributes, empty) => {
      if (closing) assert.is(stack.pop(), name, 'tags balance');
      else if (!empty) stack.push(name as string);
      return '';
    },
  );
  assert.equal(stack, []);
  assert.not.match(withoutTags, /[<>]/, 'nothing but tags uses angle brackets');
  assert.not.match(withoutTags, /&(?!#\d+;)/, 'every ampersand is an entity');
  assert.not.match(svg, /NaN|Infinity|undefined/);
  assert.not.match(
    svg.replace('http://www.w3.org/2000/svg', ''),
    /https?:|<script|@import|url\(/,
    'one file, no network',
  );
}

const attributes = (svg: string, pattern: RegExp): number[][] =>
  [...svg.matchAll(pattern)].map((match) => match.slice(1).map(Number));

test('charts are well-formed, self-contained and the same each time', () => {
  for (const svg of [lineChart(lines), barChart(bars)]) {
    checkXml(svg);
    assert.match(svg, /^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" viewBox="0 0 \d+ \d+"/);
    assert.match(svg, /prefers-color-scheme: dark/);
  }
  assert.is(lineChart(lines), lineChart(lines));
  assert.match(lineChart(lines), />Reads &#38; &#34;writes&#34; &#60;4 KiB&#62;</);
  assert.match(lineChart(lines), />the machine&#39;s own</);
});

test('on a logarithmic axis equal factors are equal distances, and points of a line run from left to right', () => {
  const svg = lineChart({
    ...lines,
    series: [{ name: 's', points: [8, 1, 64].map((x) => ({ x, y: x })) }],
  });
  const path = /class="line s0" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"/
    .exec(svg)!
    .slice(1)
    .map(Number);
  const [x1, y1, x8, y8, x64, y64] = path as [number, number, number, number, number, number];
  assert.ok(x1 < x8 && x8 < x64 && y1 > y8 && y8 > y64);
  assert.ok(Math.abs(x8 - x1 - (x64 - x8)) < 0.2);
  assert.ok(Math.abs(y8 - y1 - (y64 - y8)) < 0.2);
});

test('bars are as long as their values, one for each that was measured', () => {
  const svg = barChart(bars);
  const rects = attributes(svg, /<rect class="f\d" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/g);
  assert.is(rects.length, 3);
  const heights = rects.map((r) => r[3]!);
  assert.ok(Math.abs(heights[1]! - 2 * heights[0]!) < 0.3, heights.join());
  assert.is(heights[2], 0);
  // All bars of a linear chart stand on the same line.
  assert.ok(Math.abs(rects[0]![1]! + heights[0]! - (rects[1]![1]! + heights[1]!)) < 0.2);
});

test('bars of a stack stand upon each other, each as long as its value, and the scale reaches their sum', () => {
  const svg = barChart({
    ...bars,
    stacked: true,
    series: ['a', 'b', 'c'],
    groups: [{ name: 'g', values: [{ y: 25 }, null, { y: 75 }] }],
  });
  checkXml(svg);
  const rects = attributes(svg, /<rect class="f(\d)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"/g);
  assert.equal(
    rects.map((r) => r[0]),
    [0, 2],
  );
  const [lower, upper] = rects as [number[], number[]];
  assert.is(lower[1], upper[1]);
  assert.ok(Math.abs(upper[2]! + upper[3]! - lower[2]!) < 0.2, 'one upon the other');
  assert.ok(Math.abs(upper[3]! - 3 * lower[3]!) < 0.3);
  assert.match(svg, />100</);
  assert.not.match(svg, />150</);
});

test('names that are wider than their group are broken at spaces, and nothing of them is lost', () => {
  const names = ['write 256 KiB random', 'read 4 KiB seq.', 'unbreakable-name-of-one-word'];
  const groups = Array.from({ length: 16 }, (_, i) => ({ name: names[i % 3]!, values: [{ y: 1 }] }));
  const svg = barChart({ ...bars, series: ['s'], groups });
  for (const piece of ['write', '256 KiB', 'random', 'unbreakable-name-of-one-word']) {
    assert.ok(svg.includes(`>${piece}</text>`), piece);
  }
  assert.not.ok(svg.includes('>write 256 KiB random</text>'));
  assert.ok(barChart({ ...bars, series: ['s'], groups: groups.slice(0, 1) }).includes('>write 256 KiB random</text>'));
});

test('a whisker reaches from the lowest to the highest value', () => {
  const svg = barChart(bars);
  const whiskers = attributes(svg, /class="whisker" d="M[\d.]+ ([\d.]+)H[\d.]+M[\d.]+ [\d.]+V([\d.]+)/g);
  assert.is(whiskers.length, 1);
  const [high, low] = whiskers[0] as [number, number];
  const bar = attributes(svg, /<rect class="f1" x="[\d.]+" y="([\d.]+)"/g)[0]![0]!;
  assert.ok(high < bar && bar < low, `${high} ${bar} ${low}`);
});

test('nothing measured, one value, zeros and infinities still draw', () => {
  for (const values of [[], [0], [5], [0, 0], [NaN, 3], [Infinity, 2], [1e-9, 1e12]]) {
    for (const yScale of ['linear', 'log'] as const) {
      checkXml(
        lineChart({
          ...lines,
          xScale: 'linear',
          yScale,
          series: [{ name: 's', points: values.map((y, x) => ({ x, y })) }],
        }),
      );
      checkXml(
        barChart({ ...bars, yScale, series: ['s'], groups: values.map((y) => ({ name: 'g', values: [{ y }] })) }),
      );
    }
  }
});

test('series beyond the palette still differ, and the legend names each', () => {
  const series = Array.from({ length: 12 }, (_, i) => ({ name: `series ${i}`, points: [{ x: 1, y: i + 1 }] }));
  const svg = lineChart({ ...lines, series });
  checkXml(svg);
  for (const { name } of series) assert.ok(svg.includes(`>${name}</text>`), name);
  assert.is(svg.match(/stroke-dasharray/g)!.length, 4);
});

test('numbers are shortened to three digits', () => {
  assert.equal([0, 0.125, 7, 999, 999.9, 1000, 1234, 53_800, 122_000, 1e6, 2.5e9].map(compact), [
    '0',
    '0.125',
    '7',
    '999',
    '1k',
    '1k',
    '1.23k',
    '53.8k',
    '122k',
    '1M',
    '2.5G',
  ]);
});

test.run();

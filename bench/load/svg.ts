/**
 * Charts as plain SVG text: grouped or stacked bars and lines, axes, legend, logarithmic scales, whiskers for the spread. No
 * script, no font, no style from elsewhere, so a plot is one file that any browser and any code host shows.
 *
 * Guarantees: the same input gives the same bytes; values that are no finite number are left out; text is escaped; colours
 * follow the reader's light or dark setting; series differ by mark as well as by colour.
 */

export interface Point {
  x: number;
  y: number;
  /** Ends of the whisker: the lowest and highest value that was measured. */
  low?: number | undefined;
  high?: number | undefined;
}

export interface LineChart {
  title: string;
  subtitle?: string | undefined;
  xLabel: string;
  yLabel: string;
  xScale: 'linear' | 'log';
  yScale: 'linear' | 'log';
  series: Array<{ name: string; points: Point[] }>;
  /** Default true; false where points are so many that their marks would cover the line. */
  marks?: boolean | undefined;
}

export interface BarChart {
  title: string;
  subtitle?: string | undefined;
  yLabel: string;
  yScale: 'linear' | 'log';
  /** Names of the bars inside each group, in the order of `values`. */
  series: string[];
  /** `null`: not measured, the place stays empty. */
  groups: Array<{ name: string; values: Array<Omit<Point, 'x'> | null> }>;
  /** The bars of a group one upon the other, for parts of a whole; the scale is linear then, and has no whiskers. */
  stacked?: boolean | undefined;
}

const WIDTH = 860;
const HEIGHT = 480;
const LEFT = 84;
const RIGHT = 24;
const TOP = 70;
const BOTTOM = 96;
const PLOT_WIDTH = WIDTH - LEFT - RIGHT;
const PLOT_HEIGHT = HEIGHT - TOP - BOTTOM;
const SERIES_COLOURS = 8;

/** Okabe and Ito's palette, which colour-blind readers can tell apart, shifted a little for each background. */
const STYLE = `
  svg { background: #ffffff; }
  text { font: 12px system-ui, sans-serif; fill: #1f2328; }
  .title { font-size: 17px; font-weight: 600; }
  .quiet { fill: #59636e; }
  .inside { fill: #ffffff; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  .axis { stroke: #59636e; stroke-width: 1; fill: none; }
  .whisker { stroke: #1f2328; stroke-width: 1.2; fill: none; }
  .line { fill: none; stroke-width: 2; }
${['#0072b2', '#d55e00', '#009e73', '#aa4f8c', '#b8860b', '#2f94c9', '#6a6a6a', '#7a3fc0'].map(colourRules).join('')}
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .inside { fill: #0d1117; }
    .grid { stroke: #30363d; }
    .axis { stroke: #9198a1; }
    .whisker { stroke: #e6edf3; }
${['#56a8e0', '#f0883e', '#3fc79a', '#e08cc4', '#e3c04a', '#8fd3ff', '#b0b0b0', '#b392f0'].map(colourRules).join('')}
  }
`;

function colourRules(colour: string, i: number): string {
  return `  .f${i} { fill: ${colour}; } .s${i} { stroke: ${colour}; }\n`;
}

export function lineChart(chart: LineChart): string {
  const measured = chart.series.map((s) => ({ ...s, points: s.points.filter((p) => isFinite(p.x) && isFinite(p.y)) }));
  const points = measured.flatMap((s) => s.points);
  const x = scale(
    points.map((p) => p.x),
    chart.xScale,
    false,
    LEFT,
    LEFT + PLOT_WIDTH,
  );
  const y = scale(points.flatMap(extremes), chart.yScale, true, TOP + PLOT_HEIGHT, TOP);
  const out = [frame(chart.title, chart.subtitle, chart.yLabel, y)];
  // The x axis is labelled at the measured values themselves: clients and depths are few.
  const distinct = [...new Set(points.map((p) => p.x))].sort((a, b) => a - b);
  const ticks = distinct.length <= 12 ? distinct : x.ticks;
  for (const tick of ticks) {
    const at = n(x.at(tick));
    out.push(`<line class="axis" x1="${at}" y1="${TOP + PLOT_HEIGHT}" x2="${at}" y2="${TOP + PLOT_HEIGHT + 5}"/>`);
    out.push(text(x.at(tick), TOP + PLOT_HEIGHT + 19, compact(tick), 'middle'));
  }
  out.push(text(LEFT + PLOT_WIDTH / 2, TOP + PLOT_HEIGHT + 38, chart.xLabel, 'middle', 'quiet'));
  measured.forEach((series, i) => {
    const sorted = [...series.points].sort((a, b) => a.x - b.x);
    const path = sorted.map((p, j) => `${j === 0 ? 'M' : 'L'}${n(x.at(p.x))} ${n(y.at(p.y))}`).join('');
    const colour = i % SERIES_COLOURS;
    out.push(`<path class="line s${colour}"${dash(i)} d="${path}"/>`);
    for (const p of chart.marks === false ? [] : sorted) {
      out.push(whisker(x.at(p.x), p, y), mark(i, x.at(p.x), y.at(p.y), `${series.name}: ${compact(p.y)}`));
    }
  });
  out.push(legend(chart.series.map((s) => s.name)));
  return document(out);
}

export function barChart(chart: BarChart): string {
  const stacked = chart.stacked ?? false;
  const values = stacked
    ? chart.groups.map((g) => g.values.reduce((sum, v) => sum + heightOf(v), 0))
    : chart.groups.flatMap((g) => g.values).flatMap((v) => (v === null ? [] : extremes(v)));
  const y = scale(values, stacked ? 'linear' : chart.yScale, true, TOP + PLOT_HEIGHT, TOP);
  const out = [frame(chart.title, chart.subtitle, chart.yLabel, y)];
  const groupWidth = PLOT_WIDTH / Math.max(chart.groups.length, 1);
  const barWidth = Math.min((groupWidth * 0.8) / (stacked ? 1 : Math.max(chart.series.length, 1)), 90);
  chart.groups.forEach((group, g) => {
    const middle = LEFT + groupWidth * (g + 0.5);
    wrap(group.name, Math.floor(groupWidth / 6.5)).forEach((line, i) => {
      out.push(text(middle, TOP + PLOT_HEIGHT + 19 + 13 * i, line, 'middle'));
    });
    if (stacked) return void out.push(...stack(chart.series, group.values, middle - barWidth / 2, barWidth, y));
    group.values.forEach((value, i) => {
      if (value === null || !isFinite(value.y)) return;
      const left = middle + (i - chart.series.length / 2) * barWidth;
      const top = y.at(value.y);
      const height = Math.max(TOP + PLOT_HEIGHT - top, 0);
      out.push(
        `<rect class="f${i % SERIES_COLOURS}" x="${n(left + 1)}" y="${n(top)}" width="${n(barWidth - 2)}" ` +
          `height="${n(height)}"><title>${escape(`${chart.series[i]!}: ${compact(value.y)}`)}</title></rect>`,
      );
      out.push(whisker(left + barWidth / 2, value, y));
      const labelAt = Math.min(top, value.high === undefined ? top : y.at(value.high)) - 5;
      if (barWidth >= 26) out.push(text(left + barWidth / 2, labelAt, compact(value.y), 'middle'));
    });
  });
  out.push(legend(chart.series));
  return document(out);
}

const heightOf = (value: Omit<Point, 'x'> | null): number => Math.max(finite(value?.y ?? 0, 0), 0);

/** One bar of several parts, the first at the bottom; each with its number in it, where that fits. */
function stack(
  names: string[],
  values: Array<Omit<Point, 'x'> | null>,
  left: number,
  width: number,
  y: Scale,
): string[] {
  const out: string[] = [];
  let below = 0;
  values.forEach((value, i) => {
    const [top, bottom] = [y.at(below + heightOf(value)), y.at(below)];
    below += heightOf(value);
    if (bottom - top <= 0) return;
    out.push(
      `<rect class="f${i % SERIES_COLOURS}" x="${n(left + 1)}" y="${n(top)}" width="${n(width - 2)}" ` +
        `height="${n(bottom - top)}"><title>${escape(`${names[i]!}: ${compact(heightOf(value))}`)}</title></rect>`,
    );
    if (bottom - top >= 15)
      out.push(text(left + width / 2, (top + bottom) / 2 + 4, compact(heightOf(value)), 'middle', 'inside'));
  });
  return out;
}

interface Scale {
  at(value: number): number;
  ticks: number[];
}

/** `fromZero`: a linear axis begins at 0, so that lengths compare as the values do. */
function scale(values: number[], kind: 'linear' | 'log', fromZero: boolean, start: number, end: number): Scale {
  const usable = values.filter((v) => Number.isFinite(v) && (kind === 'linear' || v > 0));
  const largest = usable.length > 0 ? Math.max(...usable) : 1;
  const smallest = usable.length > 0 ? Math.min(...usable) : 1;
  if (kind === 'linear') {
    const low = fromZero ? Math.min(0, smallest) : smallest;
    const step = niceStep((largest - low) / 5);
    const high = fromZero ? Math.ceil(largest / step - 1e-9) * step : Math.max(largest, low + step);
    const ticks: number[] = [];
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) ticks.push(i * step);
    return { at: (v) => start + ((finite(v, low) - low) / (high - low || 1)) * (end - start), ticks };
  }
  const lowPower = fromZero ? Math.floor(Math.log10(smallest) + 1e-9) : Math.log10(smallest);
  let highPower = fromZero ? Math.ceil(Math.log10(largest) - 1e-9) : Math.log10(largest);
  if (highPower - lowPower < 1e-9) highPower = lowPower + 1;
  const ticks: number[] = [];
  for (let power = Math.ceil(lowPower - 1e-9); power <= highPower + 1e-9; power++) ticks.push(10 ** power);
  return {
    at: (v) => {
      const power = Math.max(Math.log10(Math.max(finite(v, 10 ** lowPower), Number.MIN_VALUE)), lowPower);
      return start + ((power - lowPower) / (highPower - lowPower)) * (end - start);
    },
    ticks,
  };
}

function finite(value: number, otherwise: number): number {
  return Number.isFinite(value) ? value : otherwise;
}

/** 1, 2 or 5 times a power of ten, at least `atLeast`. */
function niceStep(atLeast: number): number {
  if (!(atLeast > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(atLeast));
  for (const factor of [1, 2, 5]) if (factor * power >= atLeast * (1 - 1e-9)) return factor * power;
  return 10 * power;
}

function extremes(value: Omit<Point, 'x'>): number[] {
  return [value.y, value.low ?? value.y, value.high ?? value.y];
}

function frame(title: string, subtitle: string | undefined, yLabel: string, y: Scale): string {
  const out = [`<text class="title" x="${LEFT}" y="28">${escape(title)}</text>`];
  if (subtitle !== undefined) out.push(text(LEFT, 48, subtitle, 'start', 'quiet'));
  for (const tick of y.ticks) {
    const at = n(y.at(tick));
    out.push(`<line class="grid" x1="${LEFT}" y1="${at}" x2="${LEFT + PLOT_WIDTH}" y2="${at}"/>`);
    out.push(text(LEFT - 8, y.at(tick) + 4, compact(tick), 'end'));
  }
  const middle = TOP + PLOT_HEIGHT / 2;
  out.push(
    `<text class="quiet" text-anchor="middle" transform="translate(20 ${middle}) rotate(-90)">${escape(yLabel)}</text>`,
  );
  out.push(`<path class="axis" d="M${LEFT} ${TOP}V${TOP + PLOT_HEIGHT}H${LEFT + PLOT_WIDTH}"/>`);
  return out.join('\n');
}

function whisker(x: number, value: Omit<Point, 'x'>, y: Scale): string {
  if (value.low === undefined || value.high === undefined || value.low === value.high) return '';
  const [low, high] = [n(y.at(value.low)), n(y.at(value.high))];
  const [left, right] = [n(x - 5), n(x + 5)];
  return `<path class="whisker" d="M${left} ${high}H${right}M${n(x)} ${high}V${low}M${left} ${low}H${right}"/>`;
}

function mark(series: number, x: number, y: number, title: string): string {
  const shape = [
    `<circle cx="${n(x)}" cy="${n(y)}" r="4"`,
    `<rect x="${n(x - 3.5)}" y="${n(y - 3.5)}" width="7" height="7"`,
    `<path d="M${n(x)} ${n(y - 5)}L${n(x + 4.5)} ${n(y + 4)}H${n(x - 4.5)}Z"`,
    `<path d="M${n(x)} ${n(y - 5)}L${n(x + 5)} ${n(y)}L${n(x)} ${n(y + 5)}L${n(x - 5)} ${n(y)}Z"`,
  ][series % 4]!;
  const element = /^<(\w+)/.exec(shape)![1]!;
  return `${shape} class="f${series % SERIES_COLOURS}"><title>${escape(title)}</title></${element}>`;
}

function dash(series: number): string {
  return series < SERIES_COLOURS ? '' : ' stroke-dasharray="6 4"';
}

function legend(names: string[]): string {
  const out: string[] = [];
  let x = LEFT;
  let y = HEIGHT - 36;
  names.forEach((name, i) => {
    // Text cannot be measured here; seven units a letter is an upper bound for most of it.
    const width = 26 + name.length * 7;
    if (x + width > WIDTH - RIGHT && x > LEFT) {
      x = LEFT;
      y += 20;
    }
    out.push(mark(i, x + 6, y - 4, name), text(x + 17, y, name, 'start'));
    x += width + 8;
  });
  return out.join('\n');
}

function text(x: number, y: number, content: string, anchor: 'start' | 'middle' | 'end', css?: string): string {
  const className = css === undefined ? '' : ` class="${css}"`;
  return `<text${className} x="${n(x)}" y="${n(y)}" text-anchor="${anchor}">${escape(content)}</text>`;
}

function document(parts: string[]): string {
  const body = parts.filter((p) => p !== '').join('\n');
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" ` +
    `role="img">\n<style>${STYLE}</style>\n${body}\n</svg>\n`
  );
}

/** Lines of at most so many letters, as far as the words allow; the third line takes the rest. */
function wrap(name: string, letters: number): string[] {
  const lines = [''];
  for (const word of name.split(' ')) {
    const last = lines.length - 1;
    const joined = lines[last] === '' ? word : `${lines[last]} ${word}`;
    if (joined.length <= letters || lines[last] === '' || lines.length === 3) lines[last] = joined;
    else lines.push(word);
  }
  return lines;
}

/** `1 234` as `1.23k`: three significant digits, and what is too small for a unit as it is. */
export function compact(value: number): string {
  const size = Math.abs(value);
  for (const [unit, name] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (size >= unit * 0.9995) return `${Number((value / unit).toPrecision(3))}${name}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** Coordinates with one decimal: smaller files, and the same bytes on every machine. */
function n(value: number): string {
  return String(Math.round(finite(value, 0) * 10) / 10);
}

export function escape(content: string): string {
  return content.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

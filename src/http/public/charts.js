/** Throughput and latency of one volume at this node over the last ten minutes: from `event: rates`. */
import uPlot from '/vendor/uplot/uPlot.esm.js';
import { byId, bytesText, element, millisecondsText } from './text.js';

const KEPT_SECONDS = 600;
const HEIGHT = 190;

/** By volume: [times, reads, writes] and [times, p50 and p99 of reads, p50 and p99 of writes]. */
const kept = new Map();
let charts = null;
let shown = '';

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function make(id, series, unit) {
  const grid = { stroke: css('--line'), width: 1 };
  const axis = { stroke: css('--quiet'), grid, ticks: grid };
  const value = (_plot, raw) => (raw === null ? '–' : unit(raw));
  const host = byId(id);
  return new uPlot(
    {
      width: Math.max(240, host.clientWidth),
      height: HEIGHT,
      cursor: { drag: { x: false, y: false } },
      series: [{}, ...series.map((one) => ({ ...one, width: 2, value, spanGaps: false }))],
      axes: [axis, { ...axis, size: 60 }],
      scales: { y: { range: (_plot, _least, most) => [0, Math.max(1, (most ?? 0) * 1.1)] } },
    },
    [[], ...series.map(() => [])],
    host,
  );
}

function draw() {
  const series = kept.get(shown);
  if (series === undefined) return;
  if (charts === null) {
    const [reads, writes] = [css('--accent'), css('--warn')];
    const dash = [6, 4];
    charts = [
      make(
        'chart-rates',
        [
          { label: 'reads', stroke: reads },
          { label: 'writes', stroke: writes, dash },
        ],
        (raw) => `${Math.round(raw)}/s`,
      ),
      make(
        'chart-latencies',
        [
          { label: 'reads p50', stroke: reads },
          { label: 'reads p99', stroke: reads, dash: [2, 3] },
          { label: 'writes p50', stroke: writes, dash },
          { label: 'writes p99', stroke: writes, dash: [2, 3] },
        ],
        (raw) => `${raw.toFixed(2)} ms`,
      ),
    ];
  }
  charts[0].setData([series.times, series.reads, series.writes]);
  charts[1].setData([series.times, ...series.latencies]);
}

function destroy() {
  for (const chart of charts ?? []) chart.destroy();
  charts = null;
}

const ms = (us) => (us === null ? null : us / 1000);

/** @param {{ atMs: number, node: string, volumes: any[], rssBytes: number, eventLoopDelayP99Us: number }} rates */
export function showRates({ atMs, node, volumes, rssBytes, eventLoopDelayP99Us }) {
  const select = /** @type {HTMLSelectElement} */ (byId('chart-volume'));
  const names = volumes.map(({ volume }) => volume);
  if ([...select.options].map(({ value }) => value).join('\n') !== names.join('\n')) {
    select.replaceChildren(...names.map((name) => element('option', { value: name, text: name })));
    if (names.includes(shown)) select.value = shown;
    for (const name of kept.keys()) if (!names.includes(name)) kept.delete(name);
  }
  shown = select.value;
  for (const { volume, reads, writes } of volumes) {
    const series = kept.get(volume) ?? { times: [], reads: [], writes: [], latencies: [[], [], [], []] };
    kept.set(volume, series);
    const values = [ms(reads.p50Us), ms(reads.p99Us), ms(writes.p50Us), ms(writes.p99Us)];
    series.times.push(atMs / 1000);
    series.reads.push(reads.perSecond);
    series.writes.push(writes.perSecond);
    series.latencies.forEach((list, i) => list.push(values[i]));
    if (series.times.length <= KEPT_SECONDS) continue;
    for (const list of [series.times, series.reads, series.writes, ...series.latencies]) list.shift();
  }
  const one = volumes.find(({ volume }) => volume === shown);
  byId('load-now').textContent =
    one === undefined
      ? ''
      : `at ${node} (${one.role}): ${Math.round(one.reads.perSecond)} reads/s, ${Math.round(one.writes.perSecond)} writes/s, ` +
        `p99 ${millisecondsText(one.reads.p99Us)} and ${millisecondsText(one.writes.p99Us)}`;
  byId('journal').textContent =
    one === undefined
      ? ''
      : `Journal: ${bytesText(one.journalUsedBytes)} of ${bytesText(one.journalBytes)} used; fsync p99 ${millisecondsText(one.fsync.p99Us)}; ` +
        `${one.inFlight} requests in flight; event loop p99 ${millisecondsText(eventLoopDelayP99Us)}; memory ${bytesText(rssBytes)}`;
  draw();
}

byId('chart-volume').addEventListener('change', (event) => {
  shown = /** @type {HTMLSelectElement} */ (event.target).value;
  draw();
});
addEventListener('resize', () => {
  for (const [i, id] of ['chart-rates', 'chart-latencies'].entries())
    charts?.[i].setSize({ width: Math.max(240, byId(id).clientWidth), height: HEIGHT });
});
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
  destroy();
  draw();
});

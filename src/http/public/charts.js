/** Load of one volume on this node: what it is now, as a table, and the last ten minutes, as plots. */
import uPlot from '/vendor/uplot/uPlot.esm.js';
import { at, h, table } from './dom.js';
import { bytes, count, micros } from './format.js';
import { Series } from './series.js';

const HEIGHT = 190;
const WINDOW_S = 600;
/** The columns of `series.js` that each plot shows, and how: lines differ in their strokes too. */
const PLOTS = [
  {
    id: 'chart-operations',
    lines: [
      [1, 'reads, solid', 'read', []],
      [2, 'writes, dashed', 'write', [6, 3]],
    ],
  },
  {
    id: 'chart-bytes',
    lines: [
      [3, 'read, solid', 'read', []],
      [4, 'written, dashed', 'write', [6, 3]],
    ],
  },
  {
    id: 'chart-latency',
    lines: [
      [5, 'read p50, solid', 'read', []],
      [6, 'read p99, dotted', 'read', [2, 3]],
      [7, 'write p50, dashed', 'write', [6, 3]],
      [8, 'write p99, dash and dot', 'write', [9, 3, 2, 3]],
    ],
  },
  {
    id: 'chart-fsync',
    lines: [
      [9, 'p50, solid', 'read', []],
      [10, 'p99, dashed', 'write', [6, 3]],
    ],
  },
];

/** @param {string} name of a colour in the sheet */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export class Charts {
  #series = new Series();
  /** @type {Array<{ plot: any, columns: number[] }>} */
  #plots = [];
  #select = /** @type {HTMLSelectElement} */ (at('load-volume'));
  #listed = '';

  constructor() {
    this.#select.addEventListener('change', () => this.#show());
    // Colours are drawn, so another scheme means other plots.
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#make());
    new ResizeObserver(() => this.#resize()).observe(at('chart-operations'));
    this.#make();
  }

  /** @param {import('./types.js').Rates} rates */
  add(rates) {
    this.#series.add(rates);
    this.#list(rates.volumes);
    this.#show();
    const { eventLoopDelayP99Us, rssBytes } = rates;
    at('process-now').textContent =
      `The process of ${rates.node}: ${bytes(rssBytes)} of memory, its event loop is late by ${micros(eventLoopDelayP99Us)} (p99).`;
  }

  /** @param {import('./types.js').VolumeRates[]} volumes */
  #list(volumes) {
    const listed = JSON.stringify(volumes.map(({ volume, volumeId, role }) => [volume, volumeId, role]));
    if (listed === this.#listed) return;
    this.#listed = listed;
    const chosen = this.#select.value;
    this.#select.replaceChildren(
      ...volumes.map(({ volume, volumeId, role }) => h('option', { value: volumeId }, `${volume} (${role} here)`)),
    );
    const first = volumes.find(({ role }) => role === 'primary') ?? volumes[0];
    const still = volumes.some(({ volumeId }) => volumeId === chosen);
    this.#select.value = still ? chosen : (first?.volumeId ?? '');
  }

  #show() {
    const kept = this.#series.kept.get(this.#select.value);
    if (kept === undefined) {
      at('load-now').replaceChildren(h('p', {}, 'This node has no replica of a volume.'));
      return;
    }
    const { reads, writes, fsync, inFlight, volume } = kept.latest;
    const row = (name, timed, perSecond) => [
      name,
      `${count(timed.perSecond)}/s`,
      perSecond,
      micros(timed.p50Us),
      micros(timed.p99Us),
    ];
    at('load-now').replaceChildren(
      table(
        `${volume} in the last second, ${count(inFlight)} in flight`,
        ['What', 'How many', 'How much', 'Half within', '99 % within'],
        [
          row('Reads', reads, `${bytes(reads.bytesPerSecond)}/s`),
          row('Writes', writes, `${bytes(writes.bytesPerSecond)}/s`),
          row('Syncs of the journal', fsync, '–'),
        ],
      ),
    );
    const endS = kept.columns[0]?.at(-1) ?? 0;
    for (const { plot, columns } of this.#plots) {
      plot.setData(
        columns.map((i) => kept.columns[i]),
        false,
      );
      plot.setScale('x', {
        min: Math.max(kept.columns[0]?.[0] ?? 0, endS - WINDOW_S),
        max: Math.max(endS, (kept.columns[0]?.[0] ?? 0) + 10),
      });
    }
  }

  #make() {
    for (const { plot } of this.#plots) plot.destroy();
    const axis = {
      stroke: colour('text'),
      grid: { stroke: colour('grid'), width: 1 },
      ticks: { stroke: colour('grid') },
    };
    this.#plots = PLOTS.map(({ id, lines }) => {
      const options = {
        width: at(id).clientWidth || 300,
        height: HEIGHT,
        cursor: { drag: { x: false, y: false } },
        legend: { live: false },
        // From 0, and up to something, also when nothing goes on.
        scales: { y: { range: (_plot, _min, max) => [0, max > 0 ? max * 1.1 : 1] } },
        axes: [
          { ...axis, space: 70, values: (_plot, times) => times.map(timeOf) },
          { ...axis, size: 56 },
        ],
        series: [
          {},
          ...lines.map(([, label, name, dash]) => ({
            label,
            stroke: colour(name),
            width: 1.75,
            dash,
            spanGaps: false,
          })),
        ],
      };
      const columns = [0, ...lines.map(([column]) => column)];
      at(id).replaceChildren();
      return {
        plot: new uPlot(
          options,
          columns.map(() => []),
          at(id),
        ),
        columns,
      };
    });
    this.#show();
  }

  #resize() {
    for (const [i, { plot }] of this.#plots.entries()) {
      const width = at(PLOTS[i]?.id ?? '').clientWidth;
      if (width > 0 && width !== plot.width) plot.setSize({ width, height: HEIGHT });
    }
  }
}

/** @param {number} atS */
function timeOf(atS) {
  return new Date(atS * 1000).toLocaleTimeString('en-GB');
}

/** A metric of prom-client whose values are made when it is asked for them, from what is counted elsewhere. */
import type { Metric, Registry } from 'prom-client';
import type { Buckets } from '../base/buckets.ts';
import type { Scrape } from './scrape.ts';

export type Labels = Record<string, string>;
/** A histogram: counts in buckets, of numbers to be multiplied by `unit`. */
export interface Distribution {
  labels: Labels;
  buckets: Buckets;
}
export interface Value {
  labels: Labels;
  value: number;
}

interface Named {
  name: string;
  help: string;
}
export type Family =
  | (Named & { type: 'counter' | 'gauge'; values: (scrape: Scrape) => Value[] })
  | (Named & {
      type: 'histogram';
      /** Bounds are powers of two from this one to that one, of what was recorded. */
      exponents: [number, number];
      /** `seconds`: microseconds were recorded. `count`: whole numbers, a bound is the largest below the power. */
      unit: 'seconds' | 'count';
      values: (scrape: Scrape) => Distribution[];
    });

interface Sample extends Value {
  metricName?: string;
}

const MICROSECOND = 1e-6;

/** As text and as a number the same: 0.000016, not 0.000015999999. */
function boundOf(exponent: number, unit: 'seconds' | 'count'): number {
  return unit === 'count' ? 2 ** exponent - 1 : Number((2 ** exponent * MICROSECOND).toPrecision(12));
}

function samplesOf(family: Extract<Family, { type: 'histogram' }>, { labels, buckets }: Distribution): Sample[] {
  const { name, unit } = family;
  const [least, most] = family.exponents;
  const samples: Sample[] = [];
  for (let exponent = least; exponent <= most; exponent++) {
    const le = String(boundOf(exponent, unit));
    samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le }, value: buckets.below(exponent) });
  }
  samples.push({ metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: buckets.count });
  const sum = unit === 'count' ? buckets.sum : buckets.sum * MICROSECOND;
  samples.push({ metricName: `${name}_sum`, labels, value: sum });
  samples.push({ metricName: `${name}_count`, labels, value: buckets.count });
  return samples;
}

export class ReadMetric {
  readonly name: string;
  readonly help: string;
  readonly type: Family['type'];
  readonly aggregator = 'sum';
  private readonly family: Family;
  private readonly scrape: () => Scrape;

  constructor(family: Family, scrape: () => Scrape) {
    this.name = family.name;
    this.help = family.help;
    this.type = family.type;
    this.family = family;
    this.scrape = scrape;
  }

  /** What prom-client asks of each metric. */
  async get(): Promise<{ name: string; help: string; type: string; values: Sample[]; aggregator: string }> {
    const { name, help, type, aggregator, family } = this;
    const scrape = this.scrape();
    const values =
      family.type === 'histogram'
        ? family.values(scrape).flatMap((one) => samplesOf(family, one))
        : family.values(scrape);
    return { name, help, type, values, aggregator };
  }

  reset(): void {}

  addTo(registry: Registry): void {
    // Its types know only the four kinds that record by themselves.
    registry.registerMetric(this as unknown as Metric);
  }
}

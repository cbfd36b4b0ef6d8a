/** Memory and descriptors of processes over time, from proc(5): whether they grow. */
import { readFileSync, readdirSync } from 'node:fs';

export interface Sample {
  atMs: number;
  rssBytes: number;
  descriptors: number;
  threads: number;
}

export interface Growth {
  samples: number;
  /** Medians of the second and of the last quarter of the time: in the first one caches fill. */
  rssBytes: [number, number];
  descriptors: [number, number];
  /** The most there ever were. */
  most: { rssBytes: number; descriptors: number; threads: number };
}

export function sampleOf(pid: number, atMs: number): Sample {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)![1]);
  const descriptors = readdirSync(`/proc/${pid}/fd`).length;
  return { atMs, rssBytes: field('VmRSS') * 1024, descriptors, threads: field('Threads') };
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1] ?? 0;
}

export function growthOf(samples: readonly Sample[]): Growth {
  const [from, to] = [samples[0]?.atMs ?? 0, samples.at(-1)?.atMs ?? 0];
  const quarter = (n: number): Sample[] =>
    samples.filter(({ atMs }) => atMs >= from + ((to - from) * n) / 4 && atMs <= from + ((to - from) * (n + 1)) / 4);
  const medians = (of: (sample: Sample) => number): [number, number] => [
    median(quarter(1).map(of)),
    median(quarter(3).map(of)),
  ];
  const most = (of: (sample: Sample) => number): number => Math.max(0, ...samples.map(of));
  return {
    samples: samples.length,
    rssBytes: medians(({ rssBytes }) => rssBytes),
    descriptors: medians(({ descriptors }) => descriptors),
    most: {
      rssBytes: most(({ rssBytes }) => rssBytes),
      descriptors: most(({ descriptors }) => descriptors),
      threads: most(({ threads }) => threads),
    },
  };
}

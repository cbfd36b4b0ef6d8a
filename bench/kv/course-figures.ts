/**
 * What the students' report on the store that this one is compared with says of its own: three servers and a load balancer on
 * one machine (2 x E5-2660v3, SATA SSD), without fsync, keys of 20 and values of 11 bytes; read off its plots, so about.
 */

/** By keys: operations per second of one client, and the same with two servers killed. */
export const COURSE_ONE: ReadonlyMap<number, { put: [number, number]; get: [number, number] }> = new Map([
  [10_000, { put: [366, 330], get: [963, 842] }],
  [20_000, { put: [357, 317], get: [977, 890] }],
  [50_000, { put: [338, 330], get: [977, 932] }],
  [100_000, { put: [355, 323], get: [990, 946] }],
]);

/** By clients: operations per second. */
export const COURSE_MANY: ReadonlyMap<number, { put: number; get: number }> = new Map([
  [10, { put: 1850, get: 6230 }],
  [15, { put: 1960, get: 8150 }],
  [20, { put: 2050, get: 9460 }],
  [25, { put: 2075, get: 10_310 }],
  [30, { put: 2050, get: 10_710 }],
  [40, { put: 2000, get: 11_610 }],
]);

/** Of one client, in milliseconds; `p98` stands where ours is p99. */
export const COURSE_LATENCY = { get: { p50: 1.0, p98: 1.15 }, put: { p50: 2.3, p98: 2.8 } } as const;

/** Of a PUT's time, in percent: from client to load balancer and back, and within the balancer, its servers included. */
export const COURSE_SHARE = { between: 25, balancer: 75 } as const;

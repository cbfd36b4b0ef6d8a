/** How figures and settings of the key-value benches are written. */
import type { Durability } from '../load/children.ts';

export const fsync = (durability: Durability): string => (durability === 'always' ? 'on' : 'off');

export const whole = (value: number): string => (Number.isFinite(value) ? String(Math.round(value)) : '-');

/** Microseconds as milliseconds. */
export const ms = (us: number): string => (Number.isFinite(us) ? (us / 1000).toFixed(2) : '-');

/** What the target of a reintegration says in its log as it comes on: a line for each of its steps. */
import type { CrashPoint } from './crash-points.ts';

export const TARGET_STEPS: Readonly<Partial<Record<CrashPoint, string>>> = {
  'target:joined': 'being brought in sync',
  'target:barrier': 'the barrier is raised: what is written now comes by itself',
  'target:finish': 'everything is here',
  'target:in-sync': 'in sync, and the primary is told',
};

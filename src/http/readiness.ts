/** Whether a node is of use: every replica that it hosts serves or follows, and no disk of it is bad. */
import type { ReplicaStatus } from '../node/hosted-volume.ts';

export interface Readiness {
  ready: boolean;
  reasons: string[];
}

export function readinessOf(
  replicas: readonly ReplicaStatus[],
  unopened: ReadonlyArray<{ dir: string; reason: string }>,
): Readiness {
  const reasons = replicas.flatMap(({ volume, role, serving, health, healthReason, failed, waits }) => {
    if (failed !== null) return [`${volume}: poisoned: ${failed}`];
    if (health !== 'good') return [`${volume}: ${health}: ${healthReason}`];
    if (serving || role === 'following') return [];
    return [`${volume}: it neither serves nor follows: ${waits ?? role}`];
  });
  reasons.push(...unopened.map(({ dir, reason }) => `${dir}: not hosted: ${reason}`));
  return { ready: reasons.length === 0, reasons };
}

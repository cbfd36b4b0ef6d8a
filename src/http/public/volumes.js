/** Volumes with their replicas: roles, states, what each lacks, and what to do about a bad one. */
import { at, h, table } from './dom.js';
import { DASH, bytes, count, span } from './format.js';

const SIGNS = {
  'in-sync': '✓',
  answers: '✓',
  syncing: '↻',
  stale: '!',
  damaged: '✕',
  poisoned: '✕',
  absent: '✕',
  unreachable: '✕',
  safe: '✓',
  degraded: '!',
  unavailable: '✕',
};

/** @param {string} state a word with a sign: colour is never the only one */
export function badge(state) {
  const sign = h('span', { 'aria-hidden': 'true' }, SIGNS[state] ?? '·');
  return h('span', { class: 'badge', 'data-state': state }, sign, ` ${state}`);
}

/** @param {import('./types.js').MemberView} member */
function lacks({ dirtyBytes, sync }) {
  if (sync === null) return dirtyBytes === null ? DASH : dirtyBytes === 0 ? 'nothing' : bytes(dirtyBytes);
  const { leftBytes, bytesPerSecond, pass } = sync;
  const time = bytesPerSecond > 0 ? `, about ${span(leftBytes / bytesPerSecond)}` : '';
  return `${bytes(leftBytes)} left, ${bytes(bytesPerSecond)}/s${time} (pass ${pass})`;
}

/** @param {import('./types.js').MemberView} member */
function notes({ waits, reason, remedy, repairedBlocks }) {
  const parts = [waits, reason, repairedBlocks ? `${count(repairedBlocks)} rotten blocks were mended` : null];
  const text = parts.filter((part) => part !== null).join('; ');
  return h('span', {}, text || DASH, remedy === null ? null : h('code', { class: 'remedy' }, remedy));
}

/** @param {import('./types.js').VolumeView} view */
function volumeCard(view) {
  const isKv = view.members.some(({ mode }) => mode !== null);
  const heads = ['Replica on', 'Role', 'State', ...(isKv ? ['Mode', 'Keys'] : []), 'Lacks', 'Newest', 'Notes'];
  const rows = view.members.map((member) => [
    member.node,
    member.role,
    badge(member.state),
    ...(isKv ? [member.mode ?? DASH, count(member.keys)] : []),
    lacks(member),
    member.last ?? DASH,
    notes(member),
  ]);
  return h(
    'article',
    { class: 'card', 'data-volume': view.volume },
    h('h3', {}, view.volume, ' ', badge(view.verdict)),
    h(
      'p',
      {},
      `${isKv ? 'Keys and values' : 'A disk'} of ${bytes(view.sizeBytes)}, epoch ${view.epoch}, primary ${view.primary || 'nobody'}: ${view.why}.`,
    ),
    table(`Replicas of ${view.volume}`, heads, rows),
  );
}

/** @param {import('./types.js').ClusterView} view */
export function showVolumes(view) {
  if (view.volumes.length > 0) at('volumes').replaceChildren(...view.volumes.map(volumeCard));
  else at('volumes').replaceChildren(h('p', {}, 'There are none yet: ', h('code', {}, 'holdfast volume create')));
}

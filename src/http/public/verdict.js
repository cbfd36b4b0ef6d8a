/**
 * The one sentence at the top: is my data safe, if not why, and until when.
 *
 * Guarantees: what is not known is never called safe; what is announced to screen readers changes only when the state does,
 * not with each second that is left.
 */
import { at } from './dom.js';
import { bytes, span } from './format.js';

const WORDS = { safe: 'SAFE', degraded: 'DEGRADED', unavailable: 'UNAVAILABLE', unknown: 'NOT KNOWN' };
const SIGNS = { safe: '✓', degraded: '!', unavailable: '✕', unknown: '?' };

/** @param {string} id @param {string} text */
function setText(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Of all replicas that are being brought back: what is left, and the time for it.
 * @param {import('./types.js').ClusterView} view
 * @returns {string} empty: none is
 */
export function untilWhen(view) {
  const syncing = view.volumes.flatMap(({ volume, members }) =>
    members
      .filter(({ sync }) => sync !== null)
      .map(({ node, sync }) => ({ volume, node, .../** @type {any} */ (sync) })),
  );
  return syncing
    .map(({ volume, node, leftBytes, bytesPerSecond }) => {
      const time =
        bytesPerSecond > 0 ? `about ${span(leftBytes / bytesPerSecond)} left` : 'the time left is not known yet';
      return `${volume}: ${bytes(leftBytes)} are still to be copied to ${node} at ${bytes(bytesPerSecond)}/s, ${time}`;
    })
    .join('; ');
}

/**
 * @param {import('./types.js').ClusterView | null} view
 * @param {string | null} error why it is not known
 */
export function showVerdict(view, error) {
  const verdict = view === null || error !== null ? 'unknown' : view.verdict;
  document.body.dataset.verdict = verdict;
  const word = WORDS[verdict] ?? verdict.toUpperCase();
  at('verdict').dataset.sign = SIGNS[verdict] ?? '?';
  setText('verdict-word', word);
  if (error !== null)
    setText('verdict-why', `whether the data is safe: ${error}. What is below was true when last looked at.`);
  else if (view !== null)
    setText('verdict-why', view.answer.replace(/^[A-Z ]+: /, '').replace(/, about [^,;]+ left/g, ''));
  const behind = view !== null && error === null && verdict !== 'safe';
  setText('verdict-until', behind ? untilWhen(view) || waitingFor(view) : '');
  document.title = `${word} · Holdfast`;
}

/**
 * What an end of it depends on when nothing is being copied.
 * @param {import('./types.js').ClusterView} view
 */
function waitingFor(view) {
  const lost = view.nodes.filter(({ error }) => error !== null).map(({ node }) => node);
  const bad = view.volumes.flatMap(({ members }) => members.filter(({ remedy }) => remedy !== null));
  if (bad.length > 0) return 'Until a replica is replaced: the commands are below.';
  if (lost.length > 0) return `Until ${lost.join(', ')} answers again; what is written meanwhile is then copied there.`;
  return '';
}

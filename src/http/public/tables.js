/** The verdict, the volumes with their replicas, the nodes and their links: from `event: cluster`. */
import { byId, bytesText, durationText, element, table } from './text.js';

const SIGN = { safe: '✓', degraded: '!', unavailable: '✗' };
const WORD = { safe: 'SAFE', degraded: 'DEGRADED', unavailable: 'UNAVAILABLE' };

/** How bad the state of a replica is. */
const levelOf = (state) => (state === 'in-sync' ? 'safe' : state === 'syncing' ? 'degraded' : 'unavailable');

const secondsLeft = ({ sync }) =>
  sync !== null && sync.bytesPerSecond > 0 ? sync.leftBytes / sync.bytesPerSecond : null;

/** Until when it is not safe, as far as that is known. */
function untilText(volumes) {
  const left = volumes.flatMap(({ members }) => members.map(secondsLeft)).filter((one) => one !== null);
  const bad = volumes.flatMap(({ members }) => members).filter(({ state }) => state !== 'in-sync');
  if (bad.length === 0) return '';
  if (left.length < bad.length) {
    const remedies = [...new Set(bad.map(({ remedy }) => remedy).filter(Boolean))];
    return remedies.length > 0
      ? `What helps: ${remedies.join('; ')}`
      : 'Until the replicas that are missing come back.';
  }
  return `Until the reintegration is through: about ${durationText(Math.max(...left))}.`;
}

/** Says it aloud only when it changes. */
function say(id, text) {
  const where = byId(id);
  if (where.textContent !== text) where.textContent = text;
}

/** @param {{ verdict: string, answer: string, volumes: any[] }} view */
export function showVerdict({ verdict, answer, volumes }) {
  byId('verdict').className = `verdict ${verdict}`;
  say('verdict-word', `${SIGN[verdict]} ${WORD[verdict]}`);
  say('verdict-why', answer.replace(/^[A-Z ]+: /, ''));
  say('verdict-until', untilText(volumes));
  document.title = `${WORD[verdict]} – Holdfast`;
}

/** The coordinator does not answer. @param {string} error */
export function showUnknown(error) {
  byId('verdict').className = 'verdict unavailable';
  say('verdict-word', '✗ NOT KNOWN');
  say('verdict-why', `No failover can happen: ${error}`);
  say('verdict-until', 'Until the coordinator answers.');
  document.title = 'NOT KNOWN – Holdfast';
}

function stateCell({ state, mode, sync, reason, waits }) {
  const level = levelOf(state);
  const cell = element('span', { class: `state ${level}`, text: `${SIGN[level]} ${state}` });
  const more = [mode, sync === null ? null : `${sync.phase}, pass ${sync.pass}`, reason ?? waits].filter(Boolean);
  return more.length === 0
    ? cell
    : element('span', {}, cell, element('span', { class: 'quiet', text: ` ${more.join(', ')}` }));
}

/** @param {any[]} volumes */
export function showVolumes(volumes) {
  const tables = volumes.map(({ volume, sizeBytes, epoch, verdict, why, members }) => {
    const rows = members.map((member) => [
      member.node,
      member.role,
      stateCell(member),
      member.last ?? '–',
      member.dirtyBytes === null ? '–' : bytesText(member.dirtyBytes),
      String(member.repairedBlocks ?? '–'),
    ]);
    const caption = `${SIGN[verdict]} ${volume}: ${bytesText(sizeBytes)}, epoch ${epoch}, ${why}`;
    return table(caption, ['replica on', 'role', 'state', 'log position', 'dirty', 'blocks mended'], rows);
  });
  if (tables.length === 0) tables.push(element('p', { text: 'There are no volumes yet: holdfast volume create' }));
  byId('volumes').replaceChildren(...tables);
}

const SVG = 'http://www.w3.org/2000/svg';

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Nodes in a circle; a line from each primary to each of its replicas. */
function linksOf(nodes, volumes) {
  const [width, height] = [440, 200];
  const at = new Map(
    nodes.map(({ node }, i) => {
      const angle = (2 * Math.PI * i) / nodes.length - Math.PI;
      return [node, { x: width / 2 + 150 * Math.cos(angle), y: height / 2 + 65 * Math.sin(angle) }];
    }),
  );
  const svg = drawn('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img' });
  const told = [];
  for (const { volume, primary, members } of volumes) {
    for (const { node, state } of members) {
      const [from, to] = [at.get(primary), at.get(node)];
      if (node === primary || from === undefined || to === undefined) continue;
      svg.append(drawn('line', { x1: from.x, y1: from.y, x2: to.x, y2: to.y, class: levelOf(state) }));
      told.push(`${volume}: ${primary} to ${node}, ${state}`);
    }
  }
  for (const { node, error } of nodes) {
    const { x, y } = at.get(node);
    svg.append(drawn('circle', { cx: x, cy: y, r: 24, class: error === null ? 'here' : 'gone' }));
    svg.append(drawn('text', { x, y: y + 5 }, node));
  }
  svg.prepend(drawn('title', {}, told.length === 0 ? 'no links' : told.join('; ')));
  return svg;
}

/** @param {any[]} nodes @param {any[]} volumes */
export function showNodes(nodes, volumes) {
  byId('links').replaceChildren(linksOf(nodes, volumes));
  const rows = nodes.map(({ node, clientAddress, error, seenAgoMs, freeBytes, unopened }) => [
    node,
    error === null
      ? element('span', { class: 'state safe', text: '✓ answers' })
      : element('span', { class: 'state unavailable', text: `✗ ${error}` }),
    clientAddress ?? '–',
    seenAgoMs === null ? 'not for a minute' : `${durationText(seenAgoMs / 1000)} ago`,
    bytesText(freeBytes),
    unopened.length === 0 ? '–' : unopened.map(({ dir, reason }) => `${dir}: ${reason}`).join('; '),
  ]);
  const heads = ['node', 'state', 'clients connect to', 'coordinator heard of it', 'free', 'not hosted'];
  byId('nodes').replaceChildren(table('Nodes', heads, rows));
}

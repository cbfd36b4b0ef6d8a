/**
 * Nodes, and who hears whom: the coordinator hears nodes, a primary hears its replicas, this node asks all.
 *
 * Guarantees: the picture says nothing that the table beside it does not say in words; lines differ in their strokes too.
 */
import { at, h, s, table } from './dom.js';
import { DASH, bytes } from './format.js';
import { badge } from './volumes.js';

const WIDTH = 440;
const HEIGHT = 300;
const SHORT = 14;

/** @param {string} name */
function short(name) {
  return name.length > SHORT ? `${name.slice(0, SHORT - 1)}…` : name;
}

/** The worst of what the primaries of all volumes say of their replicas, by pair. @param {import('./types.js').ClusterView} view */
function linksOf(view) {
  const rank = ['in-sync', 'syncing', 'behind'];
  /** @type {Map<string, { from: string, to: string, state: string, volumes: string[] }>} */
  const links = new Map();
  for (const { volume, primary, members } of view.volumes) {
    for (const { node, state } of members) {
      if (primary === '' || node === primary) continue;
      const [from, to] = [primary, node].sort();
      const kind = state === 'in-sync' || state === 'syncing' ? state : 'behind';
      const link = links.get(`${from} ${to}`) ?? { from: from ?? '', to: to ?? '', state: 'in-sync', volumes: [] };
      if (rank.indexOf(kind) > rank.indexOf(link.state)) link.state = kind;
      link.volumes.push(volume);
      links.set(`${from} ${to}`, link);
    }
  }
  return [...links.values()];
}

/** @param {import('./types.js').ClusterView} view */
function picture(view) {
  const centre = { x: WIDTH / 2, y: HEIGHT / 2 };
  const places = new Map(
    view.nodes.map(({ node }, i) => {
      const angle = (2 * Math.PI * i) / view.nodes.length - Math.PI / 2 + (view.nodes.length === 2 ? Math.PI / 2 : 0);
      return [node, { x: centre.x + 155 * Math.cos(angle), y: centre.y + 105 * Math.sin(angle) }];
    }),
  );
  const lines = view.nodes.map(({ node, seenAgoMs }) => {
    const place = places.get(node) ?? centre;
    const state = seenAgoMs === null ? 'unheard' : 'heard';
    return s('line', { x1: centre.x, y1: centre.y, x2: place.x, y2: place.y, class: 'link', 'data-state': state });
  });
  const links = linksOf(view).map(({ from, to, state }) => {
    const [a, b] = [places.get(from) ?? centre, places.get(to) ?? centre];
    // Beside the coordinator, not through it.
    const [mx, my] = [(a.x + b.x) / 2, (a.y + b.y) / 2];
    const through = Math.hypot(mx - centre.x, my - centre.y) < 30;
    const path = through
      ? `M${a.x} ${a.y}Q${centre.x} ${centre.y - 150} ${b.x} ${b.y}`
      : `M${a.x} ${a.y}L${b.x} ${b.y}`;
    return s('path', { d: path, class: 'link', 'data-state': state });
  });
  const label = (x, y, text, attributes) =>
    s('text', { x, y, 'text-anchor': 'middle', 'dominant-baseline': 'middle', ...attributes }, text);
  const nodes = view.nodes.flatMap(({ node, error }) => {
    const { x, y } = places.get(node) ?? centre;
    const state = error === null ? 'answers' : 'silent';
    return [
      s('circle', { cx: x, cy: y, r: 38, class: 'node', 'data-state': state }),
      label(x, y - 6, short(node), { class: 'node-name' }),
      label(x, y + 11, error === null ? '✓ answers' : '✕ silent', { class: 'node-state' }),
    ];
  });
  const box = {
    x: centre.x - 46,
    y: centre.y - 15,
    width: 92,
    height: 30,
    rx: 4,
    class: 'node',
    'data-state': 'answers',
  };
  const summary = view.nodes.map(({ node, error }) => `${node} ${error === null ? 'answers' : 'is silent'}`).join(', ');
  return s(
    'svg',
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      role: 'img',
      'aria-label': `Nodes and links: ${summary}. The table says more.`,
    },
    ...lines,
    ...links,
    ...nodes,
    s('rect', box),
    label(centre.x, centre.y, 'coordinator', { class: 'node-state' }),
  );
}

function legend() {
  const item = (state, text) =>
    h(
      'li',
      {},
      s(
        'svg',
        { viewBox: '0 0 40 10', 'aria-hidden': 'true' },
        s('line', { x1: 0, y1: 5, x2: 40, y2: 5, class: 'link', 'data-state': state }),
      ),
      text,
    );
  return h(
    'ul',
    { class: 'legend' },
    item('in-sync', 'primary and replica, in sync'),
    item('syncing', 'being brought back'),
    item('behind', 'the primary goes on without it'),
    item('heard', 'the coordinator hears it'),
    item('unheard', 'not heard for a minute'),
  );
}

/** @param {import('./types.js').ClusterView} view */
export function showNodes(view) {
  const links = linksOf(view);
  const rows = view.nodes.map(({ node, clientAddress, seenAgoMs, freeBytes, pid, error, unopened }) => {
    const own = links.filter(({ from, to }) => from === node || to === node);
    const said = own.map(({ from, to, state }) => `${from === node ? to : from}: ${state}`).join(', ');
    const answers = h(
      'span',
      {},
      badge(error === null ? 'answers' : 'unreachable'),
      error === null ? null : ` ${error}`,
    );
    const bad = unopened.map(({ dir, reason }) => `${dir} could not be opened: ${reason}`).join('; ');
    return [
      node,
      h('span', {}, answers, bad === '' ? null : ` ${bad}`),
      seenAgoMs === null ? 'not for a minute' : 'yes',
      said || DASH,
      bytes(freeBytes),
      clientAddress ?? DASH,
      pid ?? DASH,
    ];
  });
  const heads = [
    'Node',
    'Answers this node',
    'Heard by the coordinator',
    'Replication with',
    'Free',
    'Address',
    'Process',
  ];
  at('links').replaceChildren(picture(view), legend());
  at('nodes').replaceChildren(table('Nodes, and who hears whom', heads, rows));
}

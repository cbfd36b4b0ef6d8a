/**
 * The dashboard of a node: listens to its stream and hands what comes to the parts of the page.
 *
 * Guarantees: when the stream is lost it says so and greys what was told before, until there is something new.
 */
import { Charts } from './charts.js';
import { at } from './dom.js';
import { clock, span } from './format.js';
import { HeatMaps } from './heat-map.js';
import { Journals } from './journal.js';
import { showNodes } from './nodes.js';
import { Stream } from './stream.js';
import { Timeline } from './timeline.js';
import { showVerdict } from './verdict.js';
import { showVolumes } from './volumes.js';

const TICK_MS = 500;

const charts = new Charts();
const maps = new HeatMaps();
const journals = new Journals();
const timeline = new Timeline();
/** @type {import('./types.js').ClusterView | null} */
let view = null;
/** Why the newest look at the cluster failed. @type {string | null} */
let error = null;
/** @type {number | null} */
let heardAtMs = null;
/** @type {number | null} */
let lostAtMs = null;

/** @type {Record<string, (data: any) => void>} */
const told = {
  cluster(look) {
    error = look.error ?? null;
    if (look.view !== undefined) {
      view = look.view;
      showVolumes(look.view);
      showNodes(look.view);
      maps.look(look.view);
    }
    document.body.dataset.known = String(error === null);
    showVerdict(view, error);
  },
  rates(rates) {
    at('own-node').textContent = `· node ${rates.node}`;
    charts.add(rates);
    journals.add(rates);
  },
  dirty: (dirty) => maps.add(dirty),
  happened: (happening) => timeline.add(happening),
};

const stream = new Stream('/api/stream', {
  told(name, data) {
    heardAtMs = Date.now();
    told[name]?.(data);
  },
  changed(live) {
    lostAtMs = live ? null : (lostAtMs ?? Date.now());
    document.body.dataset.stream = live ? 'live' : 'lost';
    at('lost').hidden = live;
    at('stream-state').hidden = !live;
    if (live) at('stream-state').textContent = '● Live';
    else showVerdict(view, 'this node does not answer this page');
    sayLost();
  },
});

function sayLost() {
  if (lostAtMs === null) return;
  const since = `since ${clock(lostAtMs)}, and is tried again each second`;
  const age =
    heardAtMs === null ? 'Nothing was told yet.' : `What is below is ${span((Date.now() - heardAtMs) / 1000)} old.`;
  at('lost-text').textContent = `The node does not answer ${since}. ${age}`;
}

at('reconnect').addEventListener('click', () => stream.reconnect());
setInterval(() => {
  sayLost();
  maps.tick(stream.live);
}, TICK_MS);

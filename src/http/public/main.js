/** The dashboard: listens to the node's stream of events and hands each to the part of the page that shows it. */
import { showRates } from './charts.js';
import { showDirty } from './heat-map.js';
import { showNodes, showUnknown, showVerdict, showVolumes } from './tables.js';
import { byId } from './text.js';
import { showHappened } from './timeline.js';

/** A node that says nothing for so long is not heard: rates come each second. */
const SILENCE_MS = 3000;
let heardMs = performance.now();

/** @param {string} text @param {boolean} lost */
function connection(text, lost) {
  const where = byId('connection');
  if (where.textContent !== text) where.textContent = text;
  where.className = lost ? 'lost' : '';
  document.body.classList.toggle('stale', lost);
}

function heard() {
  heardMs = performance.now();
  connection('Live', false);
}

function open() {
  const stream = new EventSource('api/stream');
  const on = (name, show) =>
    stream.addEventListener(name, (event) => {
      heard();
      show(JSON.parse(event.data));
    });
  on('cluster', ({ view, error }) => {
    if (error !== undefined) return showUnknown(error);
    showVerdict(view);
    showVolumes(view.volumes);
    showNodes(view.nodes, view.volumes);
  });
  on('rates', (rates) => {
    byId('own-node').textContent = `at node ${rates.node}`;
    showRates(rates);
  });
  on('dirty', showDirty);
  on('happened', showHappened);
  stream.addEventListener('error', () => {
    connection('The node is not heard: what is below may be old. Connecting anew…', true);
    // A browser gives up for good when it is answered with an error.
    if (stream.readyState === EventSource.CLOSED) setTimeout(open, 1000);
  });
}

setInterval(() => {
  if (performance.now() - heardMs > SILENCE_MS)
    connection('The node says nothing: what is below may be old. Waiting…', true);
}, 500);
open();

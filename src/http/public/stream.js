/**
 * The node's stream of events.
 *
 * Guarantees: that it is lost is told at once when the connection ends, and within SILENCE_MS when it is silent, which it never
 * is while it is well (rates come each second); it is tried again every RETRY_MS until it is there.
 */

const SILENCE_MS = 3500;
const RETRY_MS = 1000;
const WATCH_MS = 500;
const EVENTS = ['cluster', 'rates', 'dirty', 'happened'];

/**
 * @typedef {object} Listener
 * @property {(name: string, data: object) => void} told
 * @property {(live: boolean) => void} changed
 */

export class Stream {
  /** @type {EventSource | null} */
  #source = null;
  #live = false;
  #heardMs = 0;
  #nextMs = 0;
  #url;
  #listener;

  /**
   * @param {string} url
   * @param {Listener} listener
   */
  constructor(url, listener) {
    this.#url = url;
    this.#listener = listener;
    setInterval(() => this.#watch(), WATCH_MS);
    this.reconnect();
  }

  get live() {
    return this.#live;
  }

  reconnect() {
    this.#source?.close();
    const source = new EventSource(this.#url);
    this.#source = source;
    this.#heardMs = performance.now();
    source.addEventListener('error', () => {
      if (this.#source === source) this.#lose();
    });
    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (this.#source === source) this.#hear(name, event.data);
      });
    }
  }

  /** @param {string} name @param {string} text */
  #hear(name, text) {
    this.#heardMs = performance.now();
    if (!this.#live) {
      this.#live = true;
      this.#listener.changed(true);
    }
    this.#listener.told(name, JSON.parse(text));
  }

  #lose() {
    this.#source?.close();
    this.#source = null;
    this.#nextMs = performance.now() + RETRY_MS;
    this.#live = false;
    this.#listener.changed(false);
  }

  #watch() {
    const nowMs = performance.now();
    if (this.#source === null) {
      if (nowMs >= this.#nextMs) this.reconnect();
    } else if (nowMs - this.#heardMs > SILENCE_MS) this.#lose();
  }
}

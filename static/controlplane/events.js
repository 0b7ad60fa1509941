import { backoff } from "./backoff.js";
import { Emitter } from "./emitter.js";

/**
 * What the server tells of all desktops: one EventSource per browser. The tab that holds a Web Lock
 * has it and passes everything on; when it closes, the next one resumes where it ended. Without
 * locks (plain http) each tab has its own, while it is visible.
 *
 * Emits `event` {type, data}. How things are is told at first, and may be told twice; a `late` hello
 * lists what was known to another tab. Emits `signedout` where that has ended it.
 */

const TYPES = ["hello", "control", "viewers", "display", "gone"];
const QUIET_MS = 30_000; // nothing heard for so long: on waking, the link may be dead
const CLOSED = 2;

export class Events extends Emitter {
  #with;
  /** @type {EventSource | null} */ #source = null;
  /** @type {BroadcastChannel | null} */ #channel = null;
  /** The newest of each kind, for tabs that come later. @type {Map<string, Told>} */ #known = new Map();
  /** @type {Set<string>} */ #workspaces = new Set();
  /** @type {AbortController | null} */ #waiting = null;
  /** @type {(() => void) | null} */ #resign = null;
  #lastId = "";
  #heard = 0;
  #failures = 0;
  /** @type {any} */ #timer = null;

  /** @param {EventsNeeds} with_ */
  constructor(with_) {
    super();
    this.#with = with_;
  }

  start() {
    const { name, locks, channel } = this.#with;
    this.#waiting = new AbortController();
    if (!locks) return this.wake();
    this.#channel = channel(name);
    this.#channel.onmessage = ({ data }) => this.#overhear(data);
    this.#channel.postMessage({ ask: "known" });
    locks.request(name, { signal: this.#waiting.signal }, () => this.#lead()).catch(() => {}); // stopped
  }

  stop() {
    this.#waiting?.abort();
    this.#waiting = null;
    this.#disconnect();
    this.#resign?.();
    this.#resign = null;
    this.#channel?.close();
    this.#channel = null;
  }

  /** The page has become visible or hidden, or the network is back. */
  wake() {
    if (!this.#waiting) return;
    if (this.#with.locks && !this.#resign) this.#channel?.postMessage({ ask: "look" });
    else this.#look();
  }

  /** Until stopped. @returns {Promise<void>} */
  #lead() {
    this.#connect();
    return new Promise((resolve) => (this.#resign = resolve));
  }

  #look() {
    const { locks, visible, now } = this.#with;
    if (!locks && !visible()) return this.#disconnect();
    if (!this.#source || now() - this.#heard > QUIET_MS) this.#connect();
  }

  #connect() {
    this.#disconnect();
    this.#heard = this.#with.now();
    const source = this.#with.open(this.#lastId && `?last_event_id=${this.#lastId}`);
    for (const type of TYPES) source.addEventListener(type, (event) => this.#receive(type, event));
    source.addEventListener("open", () => (this.#failures = 0));
    source.addEventListener("error", () => this.#failed(source));
    this.#source = source;
  }

  #disconnect() {
    this.#with.timers.clear(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  /** It comes back by itself, unless the server has refused. @param {EventSource} source */
  async #failed(source) {
    if (source !== this.#source || source.readyState !== CLOSED) return;
    const status = await this.#with.probe();
    if (source !== this.#source) return;
    if (status === 401) return this.stop(), this.emit("signedout");
    const { timers, random } = this.#with;
    this.#disconnect();
    this.#timer = timers.set(() => this.#connect(), backoff(this.#failures++, random));
  }

  /** @param {string} type @param {MessageEvent} event */
  #receive(type, event) {
    this.#heard = this.#with.now();
    this.#lastId = event.lastEventId || this.#lastId;
    const told = { type, data: JSON.parse(event.data), id: this.#lastId };
    this.#channel?.postMessage(told);
    this.#tell(told);
  }

  /** @param {any} message of another tab */
  #overhear(message) {
    if (!message.ask) {
      this.#lastId = message.id || this.#lastId;
      if (!this.#resign) this.#tell(message);
    } else if (this.#resign) {
      if (message.ask === "look") this.#look();
      else this.#tellAgain();
    }
  }

  /** To a tab that has just come: its page is as new, but may have missed a moment. */
  #tellAgain() {
    const hello = { type: "hello", data: { workspaces: [...this.#workspaces], late: true } };
    for (const told of [hello, ...this.#known.values()]) this.#channel?.postMessage({ ...told, id: this.#lastId });
  }

  /** @param {Told} told */
  #tell({ type, data, id }) {
    const { workspace } = data;
    if (type === "hello") this.#workspaces = new Set(data.workspaces);
    else if (type === "gone") this.#forget(workspace);
    else this.#known.set(`${type} ${workspace}`, { type, data, id });
    if (type === "control") this.#workspaces.add(workspace);
    this.emit("event", { type, data });
  }

  /** @param {string} workspace */
  #forget(workspace) {
    this.#workspaces.delete(workspace);
    for (const type of TYPES) this.#known.delete(`${type} ${workspace}`);
  }
}

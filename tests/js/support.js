/** Fakes for the page's parts: a clock, a server, sockets and noVNC. Time moves only in `advance`. */

import { Api } from "../../static/controlplane/api.js";
import { Display } from "../../static/controlplane/display.js";
import { Lease } from "../../static/controlplane/lease.js";

/** Let everything that is ready run. */
export async function settle() {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setImmediate(resolve));
}

export class FakeClock {
  time = Date.parse("2026-03-01T12:00:00Z");
  /** Timers run only at whole multiples of it, as those of a hidden page; ms. */
  grain = 1;
  #next = 1;
  /** @type {Map<number, {at: number, callback: () => void}>} */
  #timers = new Map();

  now = () => this.time;

  /** @type {Timers} */
  timers = {
    set: (callback, ms) => {
      this.#timers.set(this.#next, { at: Math.ceil((this.time + ms) / this.grain) * this.grain, callback });
      return this.#next++;
    },
    clear: (id) => void this.#timers.delete(id),
  };

  /** @param {number} ms */
  async advance(ms) {
    const until = this.time + ms;
    await settle();
    for (let due = this.#due(until); due; due = this.#due(until)) {
      const [id, { at, callback }] = due;
      this.#timers.delete(id);
      this.time = Math.max(this.time, at);
      callback();
      await settle();
    }
    this.time = until;
  }

  /** The machine sleeps: time passes, timers do not run. @param {number} ms */
  sleep(ms) {
    this.time += ms;
  }

  /** Somebody corrects the wall clock; timers are not impressed. @param {number} ms */
  setBack(ms) {
    this.time -= ms;
    for (const timer of this.#timers.values()) timer.at -= ms;
  }

  /** @param {number} until */
  #due(until) {
    const due = [...this.#timers].filter(([, { at }]) => at <= until);
    return due.sort(([, a], [, b]) => a.at - b.at)[0];
  }
}

/** Anna's desktop as the server knows it; its answers can be overridden per path. */
export class FakeServer {
  /** @type {{method: string, path: string, body: any, headers: any}[]} */
  calls = [];
  epoch = 4;
  version = 10;
  tokens = 0;
  /** @type {null | "me" | "Otto" | "agent"} */
  holder = null;
  /** @type {Control["last_end"]} */
  lastEnd = null;
  /** @type {Control["ends"]} */
  ends = null;
  /** @type {Asked[]} */
  requests = [];
  ttl = 300_000;
  expiresAt = 0;
  /** Answers instead of the usual ones, by the end of the path. @type {Record<string, () => any>} */
  instead = {};

  /** @param {FakeClock} clock */
  constructor(clock) {
    this.clock = clock;
  }

  /** @returns {Control} */
  control() {
    const isHeld = this.holder !== null;
    return {
      controller: this.holder === "agent" ? "agent" : isHeld ? "user" : "none",
      controlled_by: this.holder === "me" ? "Anna" : this.holder,
      yours: this.holder === "me",
      this_client: this.holder === "me",
      accepts_clipboard: true,
      agent: null,
      help: null,
      parked: null,
      handed_back: null,
      epoch: this.epoch,
      version: this.version,
      acquired_at: isHeld ? "2026-03-01T12:00:00.000Z" : null,
      expires_at: isHeld ? new Date(this.expiresAt).toISOString() : null,
      server_time: new Date(this.clock.time).toISOString(),
      hidden: null,
      holder_connected: isHeld ? true : null,
      last_input_at: null,
      last_end: this.lastEnd,
      ends: this.ends,
      closed: null,
      requests: isHeld ? this.requests : [],
      can: { observe: true, control: true, force: false },
    };
  }

  /** @param {NonNullable<Control["last_end"]>["reason"]} reason */
  end(reason, { by = "Root User", note = "maintenance" } = {}) {
    this.holder = null;
    this.version++;
    this.lastEnd = { reason, by, note, at: new Date(this.clock.time).toISOString() };
  }

  /** Somebody asks for control. @param {Partial<Asked>} [more] */
  ask(more = {}) {
    const asked_at = new Date(this.clock.time).toISOString();
    this.requests = [
      ...this.requests,
      { id: this.requests.length + 1, by: "Olive", message: "", yours: false, this_client: false, asked_at, granted_at: null, ...more },
    ];
  }

  /** @param {"me" | "Otto" | "agent"} holder */
  give(holder) {
    this.requests = [];
    this.holder = holder;
    this.epoch++;
    this.version++;
    this.expiresAt = this.clock.time + this.ttl;
  }

  /** @type {any} */
  fetch = async (/** @type {string} */ url, /** @type {any} */ { method, body, headers }) => {
    const path = url.replace("/api/desk", "");
    const call = { method, path, body: body && JSON.parse(body), headers };
    this.calls.push(call);
    const override = this.instead[path];
    return override ? override() : this.#answer(call);
  };

  /** @param {string} path */
  count(path) {
    return this.calls.filter((call) => call.path === path).length;
  }

  /** @param {{path: string, body: any}} call */
  #answer({ path, body }) {
    if (path === "/control") return json(200, this.control());
    if (path === "/session") return json(200, { session_url: this.#url() });
    if (path === "/control/acquire") return this.acquire(body);
    if (path === "/control/release") return this.#release(body);
    return this.#request(path, body);
  }

  /** @param {string} path @param {{message?: string, accept?: boolean}} body */
  #request(path, { message = "", accept }) {
    if (path.endsWith("/request")) this.ask({ by: "Anna", message, yours: true, this_client: true });
    if (path.endsWith("/withdraw")) this.requests = [];
    if (accept) this.give("Otto");
    return json(200, this.control());
  }

  /** @param {{epoch?: number, move?: boolean}} body */
  acquire({ epoch }) {
    if (epoch !== undefined && (this.holder !== "me" || epoch !== this.epoch)) {
      return refusal(409, this.lastEnd?.reason ?? "taken", this.control());
    }
    if (this.holder && this.holder !== "me" && this.holder !== "agent") return refusal(409, "held", this.control());
    if (this.holder !== "me") this.give("me");
    this.version++;
    this.expiresAt = this.clock.time + this.ttl;
    return json(200, { ...this.control(), session_url: this.#url(), renew_after_seconds: 120 });
  }

  /** @param {{epoch?: number}} body */
  #release({ epoch }) {
    if (this.holder === "me" && epoch === this.epoch) this.end("released", { by: "Anna", note: "" });
    return json(200, this.control());
  }

  #url() {
    return `ws://desk/websockify#token=t${++this.tokens}`;
  }
}

/** @param {number} status @param {any} body @param {Record<string, string>} [headers] */
export function json(status, body, headers = {}) {
  return { ok: status < 400, status, json: async () => structuredClone(body), headers: new Headers(headers) };
}

/** @param {number} status @param {string} code @param {Control | null} [current] */
export function refusal(status, code, current = null) {
  return json(status, { error: { code, message: "raw words of the server" }, current });
}

/** An answer that comes when the test says so. @returns {{answer: () => Promise<any>, give: (response: any) => void}} */
export function late() {
  /** @type {(response: any) => void} */
  let give = () => {};
  const promise = new Promise((resolve) => (give = resolve));
  return { answer: () => promise, give };
}

export const noNetwork = async () => {
  throw new TypeError("Failed to fetch");
};

class FakeSocket extends EventTarget {
  readyState = 0;
  protocol = "";
  binaryType = "blob";
  /** @type {any[]} */
  sent = [];
  /** @type {number | null} */
  closedWith = null;

  /** @param {string} url @param {string[]} protocols */
  constructor(url, protocols) {
    super();
    this.url = url;
    this.protocols = protocols;
  }

  get token() {
    return this.protocols[1]?.replace("desktopctl.token.", "");
  }

  /** @param {any} data */
  send(data) {
    this.sent.push(data);
  }

  /** @param {number} code */
  close(code) {
    this.closedWith = code;
    this.readyState = 2;
  }

  open() {
    this.readyState = 1;
    this.protocol = "desktopctl.v1";
    this.dispatchEvent(new Event("open"));
  }

  /** @param {any} message */
  text(message) {
    this.#message(typeof message === "string" ? message : JSON.stringify(message));
  }

  /** @param {number[]} bytes */
  bytes(...bytes) {
    this.#message(new Uint8Array(bytes).buffer);
  }

  /** @param {number} code */
  end(code, reason = "") {
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }

  /** @param {any} data */
  #message(data) {
    this.dispatchEvent(Object.assign(new Event("message"), { data }));
  }
}

/** noVNC, as far as the display sees it: it calls every end clean. */
class FakeRfb extends EventTarget {
  viewOnly = false;
  scaleViewport = false;
  resizeSession = true;
  focusOnClick = true;
  showDotCursor = false;
  background = "";
  /** @type {any[]} */
  frames = [];
  /** @type {any[]} */
  keys = [];
  /** @type {string[]} */
  pasted = [];
  #gone = false;

  /** @param {any} target @param {any} channel */
  constructor(target, channel) {
    super();
    this.target = target;
    this.channel = channel;
    const names = [...Object.keys(channel), ...Object.getOwnPropertyNames(Object.getPrototypeOf(channel))];
    for (const name of ["send", "close", "binaryType", "onerror", "onmessage", "onopen", "protocol", "readyState"]) {
      if (!names.includes(name)) throw new Error(`Raw channel missing property: ${name}`);
    }
    channel.onmessage = (/** @type {any} */ { data }) => {
      this.frames.push(data);
      // The first frame stands for the whole handshake.
      if (this.frames.length === 1) this.dispatchEvent(new CustomEvent("connect", { detail: {} }));
    };
    channel.onclose = () => this.#end();
  }

  disconnect() {
    this.channel.close();
  }

  /** @param {number} keysym @param {string | null} _code @param {boolean} [down] */
  sendKey(keysym, _code, down) {
    if (!this.viewOnly) this.keys.push([keysym, down]);
  }

  focus() {}
  blur() {}

  /** @param {string} text */
  clipboardPasteFrom(text) {
    this.pasted.push(text);
  }

  #end() {
    if (this.#gone) return;
    this.#gone = true;
    this.dispatchEvent(new CustomEvent("disconnect", { detail: { clean: true } }));
  }
}

/** The page without its elements: lease and display on one fake server. */
export class FakePage {
  clock = new FakeClock();
  server = new FakeServer(this.clock);
  /** @type {FakeSocket[]} */
  sockets = [];
  /** @type {FakeRfb[]} */
  rfbs = [];
  /** @type {(number | null)[]} */
  remembered = [];
  /** @type {{type: string, detail: any}[]} */
  events = [];
  visible = true;
  random = () => 1;

  /** @param {{epoch?: number | null}} [before] what the tab remembers from before a reload */
  constructor({ epoch = null } = {}) {
    const { now, timers } = this.clock;
    const random = () => this.random();
    const page = this;
    this.api = new Api({ fetch: this.server.fetch, base: "/api/desk", clientId: "tab-12345", csrf: () => "c", timers });
    this.lease = new Lease({ api: this.api, epoch, remember: (e) => this.remembered.push(e), now, timers, random });
    this.loads = async () => /** @type {any} */ (Rfb);
    class Rfb extends FakeRfb {
      /** @param {any} target @param {any} channel */
      constructor(target, channel) {
        super(target, channel);
        page.rfbs.push(this);
      }
    }
    this.display = new Display({
      session: () => this.lease.session(),
      load: () => this.loads(),
      open: (url, protocols) => {
        const socket = new FakeSocket(url, protocols);
        this.sockets.push(socket);
        return /** @type {any} */ (socket);
      },
      screen: /** @type {any} */ ({}),
      now,
      timers,
      random,
      visible: () => this.visible,
    });
    this.lease.addEventListener("change", () => this.display.allow(this.lease.wants !== "none"));
    this.display.addEventListener("control", (event) => this.lease.hear(/** @type {CustomEvent} */ (event).detail));
    for (const part of [this.lease, this.display]) this.#record(part);
  }

  get socket() {
    return /** @type {FakeSocket} */ (this.sockets.at(-1));
  }

  get rfb() {
    return /** @type {FakeRfb} */ (this.rfbs.at(-1));
  }

  /** @param {string} type */
  told(type) {
    return this.events.filter((event) => event.type === type).map((event) => event.detail);
  }

  async start() {
    this.lease.start();
    this.display.start();
    this.display.allow(this.lease.wants !== "none");
    await settle();
  }

  /** The stream that was dialled last comes to life. */
  async goLive({ mode = this.server.holder === "me" ? "control" : "observe" } = {}) {
    this.socket.open();
    this.socket.text({ type: "hello", mode, control: this.server.control() });
    this.socket.bytes(82); // the handshake
    this.socket.bytes(0, 0); // a FramebufferUpdate
    await settle();
  }

  /** @param {"observe" | "control"} mode @param {any} [cause] */
  async tellControl(mode, cause = {}) {
    this.socket.text({ type: "control", mode, reason: null, by: null, note: null, ...cause, control: this.server.control() });
    await settle();
  }

  /** A live page that has control. */
  async inControl() {
    await this.start();
    await this.goLive();
    await this.lease.take();
    await this.tellControl("control");
  }

  /** @param {EventTarget} part */
  #record(part) {
    for (const type of ["lost", "kept", "refused", "signedout", "frozen", "live", "unpasted", "clipboard"]) {
      part.addEventListener(type, (event) => this.events.push({ type, detail: /** @type {any} */ (event).detail }));
    }
  }
}

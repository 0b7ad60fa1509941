import { CAP_MS, DIALS, backoff } from "./backoff.js";
import { Channel } from "./channel.js";
import { actionFor } from "./closecodes.js";

/**
 * The picture: one stream at a time, dialled again whenever it breaks.
 *
 *     connecting ──> live ──> reconnecting ──> live …
 *                                  └── ten dials in a row ──> disconnected
 *     any ── a close code or HTTP answer that is final ──> ended, unavailable
 *
 * Promises
 * - What happens after a close is decided by its code (closecodes.js), never by noVNC.
 * - Each dial asks `session()` first and uses that address once. While that gets no answer there
 *   is no dial and nothing is counted: asking goes on, at most CAP_MS apart, without an end.
 * - At most DIALS dials in a row. The delay starts small again with each live picture, the count
 *   after STEADY_MS of one.
 * - No byte for SILENCE_MS is a dead stream; judged only while the page is visible.
 * - Keys and mouse go out only while the server says `control` and the page wants it (`allow`).
 *
 * Events: `change` (read `view`); `control` (a hello or control message); `frozen` ({at}), before a
 * picture that was live goes away; `live`; `clipboard` ({text}), from the desktop; `toolarge`.
 */

const STEADY_MS = 10_000;
const PING_MS = 10_000;
const SILENCE_MS = 25_000;
const PULSE_MS = 2_500;
const LOAD_MS = 20_000;
const KEY_V_CODES = { control: 0xffe3, meta: 0xffe9 };

export class Display extends EventTarget {
  /** @type {DisplayState} */
  state = "connecting";
  #session;
  #load;
  #open;
  #screen;
  #now;
  #timers;
  #random;
  #visible;

  /** @type {RfbClass | null} */
  #Rfb = null;
  /** @type {Rfb | null} */
  #rfb = null;
  /** @type {Channel | null} */
  #channel = null;
  /** @type {any} */ #retryTimer = null;
  /** @type {any} */ #steadyTimer = null;
  /** @type {any} */ #pulseTimer = null;
  #generation = 0;
  #count = 0;
  #failures = 0;
  #waiting = false;
  #allowed = false;
  #connected = false;
  #frames = 0;
  #pings = 0;
  #heardAt = 0;
  #pingedAt = 0;
  #pulsedAt = 0;
  /** @type {DisplayView["offline"]} */ #offline = "";
  /** @type {DisplayView["step"]} */ #step = "session";
  /** @type {DisplayView["mode"]} */ #mode = "observe";
  /** @type {number | string} */ #why = "";
  #fault = "";
  #pause = "";
  /** @type {{code: number, reason: string} | null} what the server said before it closed */
  #closing = null;

  /**
   * @param {object} with_
   * @param {() => Promise<Answer<{session_url: string}>>} with_.session permission for one dial
   * @param {() => Promise<RfbClass>} with_.load noVNC's class
   * @param {(url: string, protocols: string[]) => WebSocket} with_.open
   * @param {Element} with_.screen where noVNC puts its canvas
   * @param {() => number} with_.now
   * @param {Timers} with_.timers
   * @param {() => number} with_.random
   * @param {() => boolean} with_.visible whether somebody can see the page
   */
  constructor({ session, load, open, screen, now, timers, random, visible }) {
    super();
    this.#session = session;
    this.#load = load;
    this.#open = open;
    this.#screen = screen;
    this.#now = now;
    this.#timers = timers;
    this.#random = random;
    this.#visible = visible;
  }

  /** @returns {DisplayView} */
  get view() {
    const dialsNext = this.#waiting || this.#step === "session";
    const trying = this.state === "connecting" || this.state === "reconnecting";
    return {
      state: this.state,
      attempt: Math.min(DIALS, this.#count + (trying && dialsNext ? 1 : 0)),
      waiting: this.#waiting,
      offline: this.#offline,
      why: this.#why,
      fault: this.#fault,
      step: this.#step,
      mode: this.#mode,
      pause: this.#pause,
      live: this.state === "live",
    };
  }

  start() {
    this.#reset();
    this.state = "connecting";
    this.#prepare();
  }

  /** Close for good. The only close that is clean. */
  stop() {
    this.#finish("ended", "stopped");
  }

  /** A person asks for a new row of dials. */
  restart() {
    if (this.state === "live" || this.#channel) return;
    this.#reset();
    this.state = "reconnecting";
    this.#prepare();
  }

  /** Online again, visible again, or "Try now". */
  wake() {
    if (this.#waiting) this.#prepare();
    else if (this.state === "disconnected") this.restart();
    else if (this.#channel) this.#listenAnew();
  }

  /** The lease has changed: a desktop that is hidden from watchers may be visible again. */
  controlChanged() {
    if (this.#why === 4411 && !this.#channel) this.restart();
  }

  /** Whether the page wants its input to go out. @param {boolean} wanted */
  allow(wanted) {
    if (wanted === this.#allowed) return;
    this.#allowed = wanted;
    this.#applyMode();
  }

  /** @returns {boolean} */
  get driving() {
    return this.state === "live" && this.#allowed && this.#mode === "control";
  }

  focus() {
    this.#rfb?.focus({ preventScroll: true });
  }

  /** @param {string} text */
  paste(text) {
    this.#rfb?.clipboardPasteFrom(text);
  }

  ctrlAltDel() {
    this.#rfb?.sendCtrlAltDel();
  }

  /** Press and release each key. @param {number[]} keysyms */
  type(keysyms) {
    for (const keysym of keysyms) this.#rfb?.sendKey(keysym, null);
  }

  /** The second half of a paste shortcut. @param {number} keysym @param {boolean} isMeta Cmd stands for Ctrl */
  pressPaste(keysym, isMeta) {
    if (!isMeta) return this.type([keysym]);
    this.#rfb?.sendKey(KEY_V_CODES.meta, "MetaLeft", false); // noVNC sends Cmd as Alt
    this.#rfb?.sendKey(KEY_V_CODES.control, "ControlLeft", true);
    this.type([keysym]);
    this.#rfb?.sendKey(KEY_V_CODES.control, "ControlLeft", false);
  }

  #reset() {
    this.#count = this.#failures = 0;
    this.#why = this.#fault = "";
  }

  /** Load noVNC once, ask for a session, dial. */
  async #prepare() {
    const generation = ++this.#generation;
    this.#timers.clear(this.#retryTimer);
    this.#waiting = false;
    this.#step = "session";
    this.#changed();
    const loaded = await this.#loadNovnc();
    if (generation !== this.#generation) return;
    if (!loaded) return this.#probe("program", 0);
    const answer = await this.#session();
    if (generation !== this.#generation) return;
    if (answer.ok) this.#dial(answer.data.session_url);
    else this.#unanswered(answer);
  }

  /** noVNC waits for a codec probe while it loads, which hangs in some browsers. */
  async #loadNovnc() {
    if (this.#Rfb) return true;
    /** @type {any} */
    let timer;
    const late = new Promise((resolve) => (timer = this.#timers.set(() => resolve(null), LOAD_MS)));
    this.#Rfb = await Promise.race([this.#load(), late]).catch(() => null);
    this.#timers.clear(timer);
    return this.#Rfb !== null;
  }

  /** @param {Answer} answer */
  #unanswered({ status, retryAfterMs }) {
    if (status === 401) return this.#finish("ended", "signed_out");
    if (status === 403) return this.#finish("ended", "forbidden");
    if (status === 404) return this.#finish("unavailable", "missing");
    if (status === 0) return this.#probe("network", retryAfterMs);
    if (status === 429 || status >= 500) return this.#probe("busy", retryAfterMs);
    return this.#finish("ended", "refused");
  }

  /** @param {DisplayView["offline"]} offline @param {number} atLeast */
  #probe(offline, atLeast) {
    this.#offline = offline;
    this.#wait(Math.max(atLeast, backoff(this.#failures++, this.#random)));
  }

  /** @param {number} ms */
  #wait(ms) {
    this.#waiting = true;
    this.state = "reconnecting";
    this.#retryTimer = this.#timers.set(() => this.#prepare(), ms);
    this.#changed();
  }

  /** @param {string} url */
  #dial(url) {
    const Rfb = /** @type {RfbClass} */ (this.#Rfb);
    this.#offline = "";
    this.#count++;
    this.#frames = 0;
    this.#connected = false;
    this.#closing = null;
    this.#mode = "observe";
    this.#pause = "";
    this.#step = "socket";
    this.#heardAt = this.#pulsedAt = this.#pingedAt = this.#now();
    const channel = new Channel(url, this.#open, {
      open: () => this.#opened(),
      text: (message) => this.#told(message),
      bytes: (data) => this.#drew(data),
      end: (code, reason) => this.#closed(code, reason),
    });
    this.#channel = channel;
    this.#rfb = this.#attach(new Rfb(this.#screen, channel, { shared: true }));
    this.#pulseTimer = this.#timers.set(() => this.#pulse(), PULSE_MS);
    this.#changed();
  }

  /** @param {Rfb} rfb */
  #attach(rfb) {
    rfb.viewOnly = true;
    rfb.scaleViewport = true;
    rfb.resizeSession = false;
    rfb.focusOnClick = false;
    rfb.showDotCursor = true;
    rfb.background = "transparent";
    rfb.addEventListener("connect", () => this.#shook());
    rfb.addEventListener("clipboard", (event) => this.#emit("clipboard", /** @type {CustomEvent} */ (event).detail));
    // noVNC gave up by itself: it did not understand what came.
    rfb.addEventListener("disconnect", () => {
      if (this.#rfb !== rfb) return;
      this.#rfb = null;
      this.#closed(1006, "");
    });
    return rfb;
  }

  #opened() {
    this.#heard();
    this.#step = "desktop";
    this.#changed();
  }

  #shook() {
    this.#connected = true;
    this.#step = "picture";
    this.#changed();
  }

  /** @param {any} message */
  #told(message) {
    this.#heard();
    const { type, id } = message;
    if (type === "ping") this.#channel?.say({ type: "pong", id });
    if (type === "closing") this.#closing = message;
    if (type === "clipboard_too_large") this.#emit("toolarge", message);
    if (type !== "hello" && type !== "control") return;
    this.#mode = message.mode === "control" ? "control" : "observe";
    this.#pause = this.#mode === "control" ? "" : (message.reason ?? "");
    this.#emit("control", message);
    this.#applyMode();
  }

  /** @param {ArrayBuffer} data */
  #drew(data) {
    this.#heard();
    if (!this.#connected || this.state === "live") return;
    const isPicture = new Uint8Array(data)[0] === 0; // FramebufferUpdate (RFC 6143, 7.6.1)
    if (!isPicture && this.#frames++ === 0) return;
    this.#goLive();
  }

  #goLive() {
    this.state = "live";
    this.#why = this.#fault = "";
    this.#failures = 0;
    this.#steadyTimer = this.#timers.set(() => {
      this.#count = 0;
      this.#changed();
    }, STEADY_MS);
    this.#applyMode();
    this.#emit("live", null);
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    const said = this.#closing;
    const isBare = code === 1005 || code === 1006;
    this.#lastWords(isBare && said ? said.code : code, said?.reason ?? reason);
    const wasLive = this.state === "live";
    this.#drop();
    switch (actionFor(Number(this.#why))) {
      case "stop":
        return this.#finish(this.#why === 4404 || this.#why === 4511 ? "unavailable" : "ended", this.#why);
      case "wait":
        return this.#finish("unavailable", this.#why);
      case "retry_at_once":
        return this.#again(wasLive ? 0 : this.#failures, 0);
      case "retry_later":
        return this.#again(this.#failures, CAP_MS / 2);
      default:
        return this.#again(this.#failures, 0);
    }
  }

  /** @param {number} code @param {string} reason the server's words, of which only known ones are used */
  #lastWords(code, reason) {
    this.#why = code;
    this.#fault = /^(\w+):/.exec(reason ?? "")?.[1] ?? "";
  }

  /** @param {number} failures @param {number} atLeast */
  #again(failures, atLeast) {
    if (this.#count >= DIALS) return this.#finish("disconnected", this.#why);
    this.#failures = failures + 1;
    this.#wait(Math.max(atLeast, backoff(failures, this.#random)));
  }

  /** @param {DisplayState} state @param {number | string} why */
  #finish(state, why) {
    this.#generation++;
    this.#timers.clear(this.#retryTimer);
    this.#drop();
    this.#waiting = false;
    this.#offline = "";
    this.state = state;
    this.#why = why;
    this.#changed();
  }

  /** Let go of the stream, keeping its last picture. */
  #drop() {
    const channel = this.#channel;
    const rfb = this.#rfb;
    if (!channel) return;
    if (this.state === "live") this.#emit("frozen", { at: this.#heardAt });
    this.#timers.clear(this.#steadyTimer);
    this.#timers.clear(this.#pulseTimer);
    this.#channel = this.#rfb = null;
    this.#mode = "observe";
    this.#pause = "";
    rfb?.disconnect(); // before noVNC hears of the close: it would complain on the console
    channel.end();
  }

  #heard() {
    this.#heardAt = this.#now();
  }

  #listenAnew() {
    this.#heard();
    this.#ping();
  }

  #pulse() {
    const now = this.#now();
    const slept = now - this.#pulsedAt > 4 * PULSE_MS;
    this.#pulsedAt = now;
    this.#pulseTimer = this.#timers.set(() => this.#pulse(), PULSE_MS);
    if (slept || !this.#visible()) this.#heard(); // silence is judged only where time was watched
    if (now - this.#heardAt >= SILENCE_MS) this.#closed(1006, "");
    else if (slept || now - this.#pingedAt >= PING_MS) this.#ping();
  }

  #ping() {
    this.#pingedAt = this.#now();
    this.#channel?.say({ type: "ping", id: ++this.#pings });
  }

  #applyMode() {
    if (this.#rfb) {
      const viewOnly = !(this.#allowed && this.#mode === "control");
      this.#rfb.viewOnly = viewOnly;
      this.#rfb.focusOnClick = !viewOnly;
    }
    this.#changed();
  }

  /** @param {string} name @param {any} detail */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  #changed() {
    this.#emit("change", null);
  }
}

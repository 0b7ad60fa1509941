import { CAP_MS, DIALS, backoff } from "./backoff.js";
import { Channel } from "./channel.js";
import { actionFor } from "./closecodes.js";
import { Emitter } from "./emitter.js";

/**
 * The picture: one stream at a time, dialled again whenever it breaks.
 *
 *     connecting --> live --> reconnecting --> live …
 *                                  `-- ten dials in a row --> disconnected
 *     any -- a close code or HTTP answer that is final --> ended, unavailable
 *
 * - What happens after a close is decided by its code (closecodes.js), never by noVNC.
 * - Each dial asks `session()` first and uses that address once. While that gets no answer nothing
 *   is dialled or counted: asking goes on, at most CAP_MS apart, without an end.
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
const UNAVAILABLE = [4404, 4411, 4511];
const [CONTROL, ALT] = [0xffe3, 0xffe9];

export class Display extends Emitter {
  #with;
  /** @type {Omit<DisplayView, "attempt">} */
  #view = { state: "connecting", waiting: false, offline: "", why: "", fault: "", step: "session", mode: "observe", pause: "", delay: null };
  /** @type {RfbClass | null} */
  #Rfb = null;
  /** @type {Rfb | null} */
  #rfb = null;
  /** @type {Channel | null} */
  #channel = null;
  /** @type {{code: number, reason: string} | null} what the server said before it closed */
  #closing = null;
  /** @type {Record<string, any>} */ #timer = {};
  #generation = 0; // of what is being prepared: the latest counts
  #count = 0; // dials in a row
  #failures = 0; // waits in a row
  #allowed = false;
  #hasShaken = false;
  #frames = 0;
  #pings = 0;
  #heardAt = 0;
  #pingedAt = 0;
  #pulsedAt = 0;

  /** @param {DisplayNeeds} with_ */
  constructor(with_) {
    super();
    this.#with = with_;
  }

  /** @returns {DisplayView} */
  get view() {
    const view = this.#view;
    const isTrying = view.state === "connecting" || view.state === "reconnecting";
    const isNext = isTrying && (view.waiting || view.step === "session");
    return { ...view, attempt: Math.min(DIALS, this.#count + Number(isNext)) };
  }

  /** Whether input reaches the desktop. */
  get driving() {
    return this.#view.state === "live" && this.#allowed && this.#view.mode === "control";
  }

  start() {
    this.#begin("connecting");
  }

  /** Close for good: the only clean end. */
  stop() {
    this.#finish("ended", "stopped");
  }

  /** A person asks for a new row of dials. */
  restart() {
    if (!this.#channel) this.#begin("reconnecting");
  }

  /** Online again, visible again, or "Try now". */
  wake() {
    if (this.#view.waiting) this.#prepare();
    else if (this.#view.state === "disconnected") this.restart();
    else if (this.#channel) (this.#heard(), this.#ping());
  }

  /** A desktop that is hidden from watchers may be visible again. */
  controlChanged() {
    if (this.#view.why === 4411) this.restart();
  }

  /** Whether the page wants its input to go out. @param {boolean} isWanted */
  allow(isWanted) {
    if (isWanted === this.#allowed) return;
    this.#allowed = isWanted;
    this.#applyMode();
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

  /** The second half of a paste. @param {number} keysym @param {boolean} isMeta Cmd stands for Ctrl */
  pressPaste(keysym, isMeta) {
    if (!isMeta) return this.type([keysym]);
    this.#rfb?.sendKey(ALT, null, false); // what noVNC sends for Cmd
    this.#rfb?.sendKey(CONTROL, null, true);
    this.type([keysym]);
    this.#rfb?.sendKey(CONTROL, null, false);
  }

  /** @param {DisplayState} state */
  #begin(state) {
    this.#count = this.#failures = 0;
    Object.assign(this.#view, { state, why: "", fault: "" });
    this.#prepare();
  }

  /** Load noVNC once, ask for a session, dial. */
  async #prepare() {
    const generation = ++this.#generation;
    this.#with.timers.clear(this.#timer.retry);
    this.#set({ waiting: false, step: "session" });
    const isLoaded = await this.#loadNovnc();
    if (generation !== this.#generation) return;
    if (!isLoaded) return this.#probe("program", 0);
    const answer = await this.#with.session();
    if (generation !== this.#generation) return;
    if (answer.ok) this.#dial(answer.data.session_url);
    else this.#unanswered(answer);
  }

  /** noVNC waits for a codec probe while it loads, which hangs in some browsers. */
  async #loadNovnc() {
    if (this.#Rfb) return true;
    const { timers, load } = this.#with;
    /** @type {any} */
    let timer;
    const late = new Promise((resolve) => (timer = timers.set(() => resolve(null), LOAD_MS)));
    this.#Rfb = await Promise.race([load(), late]).catch(() => null);
    timers.clear(timer);
    return this.#Rfb !== null;
  }

  /** @param {Answer} answer */
  #unanswered({ status, retryAfterMs }) {
    if (status === 0) return this.#probe("network", retryAfterMs);
    if (status === 429 || status >= 500) return this.#probe("busy", retryAfterMs);
    if (status === 401) return this.#finish("ended", "signed_out");
    if (status === 403) return this.#finish("ended", 4403);
    if (status === 404) return this.#finish("unavailable", 4404);
    return this.#finish("ended", 4400);
  }

  /** @param {DisplayView["offline"]} offline @param {number} atLeast */
  #probe(offline, atLeast) {
    this.#view.offline = offline;
    this.#wait(atLeast);
  }

  /** @param {number} atLeast ms */
  #wait(atLeast) {
    const ms = Math.max(atLeast, backoff(this.#failures++, this.#with.random));
    this.#timer.retry = this.#with.timers.set(() => this.#prepare(), ms);
    this.#set({ state: "reconnecting", waiting: true });
  }

  /** @param {string} url */
  #dial(url) {
    this.#count++;
    this.#frames = 0;
    this.#hasShaken = false;
    this.#closing = null;
    this.#heardAt = this.#pulsedAt = this.#pingedAt = this.#with.now();
    this.#channel = new Channel(url, this.#with.open, {
      open: () => (this.#heard(), this.#set({ step: "desktop" })),
      text: (message) => this.#told(message),
      bytes: (data) => this.#drew(data),
      end: (code, reason) => this.#closed(code, reason),
    });
    this.#attach(new /** @type {RfbClass} */ (this.#Rfb)(this.#with.screen, this.#channel, { shared: true }));
    this.#timer.pulse = this.#with.timers.set(() => this.#pulse(), PULSE_MS);
    this.#set({ offline: "", step: "socket" });
  }

  /** @param {Rfb} rfb */
  #attach(rfb) {
    this.#rfb = rfb;
    Object.assign(rfb, { scaleViewport: true, resizeSession: false, showDotCursor: true, background: "transparent" });
    this.#applyMode();
    rfb.addEventListener("connect", () => ((this.#hasShaken = true), this.#set({ step: "picture" })));
    rfb.addEventListener("clipboard", (event) => this.emit("clipboard", /** @type {CustomEvent} */ (event).detail));
    // noVNC gave up by itself: it did not understand what came.
    rfb.addEventListener("disconnect", () => {
      if (this.#rfb !== rfb) return;
      this.#rfb = null;
      this.#closed(1006, "");
    });
  }

  /** @param {any} message */
  #told(message) {
    this.#heard();
    const { type, id, mode, reason } = message;
    if (type === "ping") this.#channel?.say({ type: "pong", id });
    if (type === "pong" && id === this.#pings) this.#set({ delay: this.#with.now() - this.#pingedAt });
    if (type === "closing") this.#closing = message;
    if (type === "clipboard_too_large") this.emit("toolarge", message);
    if (type !== "hello" && type !== "control") return;
    const isOpen = mode === "control";
    Object.assign(this.#view, { mode: isOpen ? "control" : "observe", pause: isOpen ? "" : (reason ?? "") });
    this.emit("control", message);
    this.#applyMode();
  }

  /** @param {ArrayBuffer} data */
  #drew(data) {
    this.#heard();
    if (!this.#hasShaken || this.#view.state === "live") return;
    const isPicture = new Uint8Array(data)[0] === 0; // FramebufferUpdate (RFC 6143, 7.6.1)
    if (isPicture || this.#frames++ > 0) this.#goLive();
  }

  #goLive() {
    this.#failures = 0;
    this.#timer.steady = this.#with.timers.set(() => {
      this.#count = 0;
      this.#set({});
    }, STEADY_MS);
    this.#set({ state: "live", why: "", fault: "" });
    this.emit("live");
    this.#ping();
  }

  /** @param {number} code @param {string} reason */
  #closed(code, reason) {
    const why = this.#learnWhy(code, reason);
    this.#drop();
    const action = actionFor(why);
    if (action === "stop" || action === "wait") this.#finish(UNAVAILABLE.includes(why) ? "unavailable" : "ended", why);
    else if (this.#count >= DIALS) this.#finish("disconnected", why);
    // After a live picture, #failures is 0: every retry is "at once", but for the jitter.
    else this.#wait(action === "retry_later" ? CAP_MS / 2 : 0);
  }

  /** @param {number} code @param {string} reason @returns {number} the code that counts */
  #learnWhy(code, reason) {
    const said = this.#closing;
    const why = said && (code === 1005 || code === 1006) ? said.code : code;
    // Of the server's words only the name of the step that failed is used.
    const fault = /^(\w+):/.exec(said?.reason ?? reason)?.[1] ?? "";
    Object.assign(this.#view, { why, fault });
    return why;
  }

  /** @param {DisplayState} state @param {number | string} why */
  #finish(state, why) {
    this.#generation++;
    this.#with.timers.clear(this.#timer.retry);
    this.#drop();
    this.#set({ state, why, waiting: false, offline: "" });
  }

  /** Let go of the stream, keeping its last picture. */
  #drop() {
    const [channel, rfb] = [this.#channel, this.#rfb];
    if (!channel) return;
    if (this.#view.state === "live") this.emit("frozen", { at: this.#heardAt });
    this.#with.timers.clear(this.#timer.steady);
    this.#with.timers.clear(this.#timer.pulse);
    this.#channel = this.#rfb = null;
    Object.assign(this.#view, { mode: "observe", pause: "", delay: null });
    rfb?.disconnect(); // before noVNC hears of the close: it would complain on the console
    channel.end();
  }

  #heard() {
    this.#heardAt = this.#with.now();
  }

  #pulse() {
    const now = this.#with.now();
    const hasSlept = now - this.#pulsedAt > 4 * PULSE_MS;
    this.#pulsedAt = now;
    this.#timer.pulse = this.#with.timers.set(() => this.#pulse(), PULSE_MS);
    if (hasSlept || !this.#with.visible()) this.#heard(); // silence is judged only where time was watched
    if (now - this.#heardAt >= SILENCE_MS) this.#closed(1006, "");
    else if (hasSlept || now - this.#pingedAt >= PING_MS) this.#ping();
  }

  #ping() {
    this.#pingedAt = this.#with.now();
    this.#channel?.say({ type: "ping", id: ++this.#pings });
  }

  #applyMode() {
    const isOpen = this.#allowed && this.#view.mode === "control";
    if (this.#rfb) Object.assign(this.#rfb, { viewOnly: !isOpen, focusOnClick: isOpen });
    this.#set({});
  }

  /** @param {Partial<DisplayView>} changes */
  #set(changes) {
    Object.assign(this.#view, changes);
    this.emit("change");
  }
}

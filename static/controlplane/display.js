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
 * - Each dial asks `session()` first and uses that address once. While that gets no answer nothing
 *   is dialled or counted, and asking goes on.
 * - The delay starts small again with each live picture, the count of DIALS after STEADY_MS of one.
 * - No byte for SILENCE_MS (ANSWER_MS after a sleep or a change of network) is a dead stream; judged
 *   only while the page is visible.
 * - Input goes out only while the server says `control` and the page wants it (`allow`).
 *
 * Events: `change` (of `view`); `control` (a message); `frozen` ({at}), before a live picture goes;
 * `live`; `clipboard` ({text}), from the desktop; `unpasted` ({type}), dropped by the server.
 */

const STEADY_MS = 10_000;
const PING_MS = 10_000;
const SILENCE_MS = 25_000;
const ANSWER_MS = 5_000;
const PULSE_MS = 2_500;
const LOAD_MS = 20_000;
/** What an HTTP answer means, as a stream would say it. @type {Record<number, number | string>} */
const FINAL = { 401: "signed_out", 403: 4403, 404: 4404 };
/** @type {(number | string)[]} */
const UNAVAILABLE = [4404, 4411, 4511];

export class Display extends Emitter {
  #with;
  /** @type {Omit<DisplayView, "attempt">} */
  #view = { state: "connecting", waiting: false, offline: "", why: "", fault: "", step: "session", mode: "observe", pause: "", delay: null };
  /** @type {RfbClass | null} */ #Rfb = null;
  /** @type {Rfb | null} */ #rfb = null;
  /** @type {Channel | null} */ #channel = null;
  #closing = { code: 0, reason: "" }; // the server's last words
  /** @type {Record<string, any>} */ #timer = {};
  #generation = 0; // of what is being prepared: the latest counts
  #count = 0; // dials in a row
  #failures = 0; // waits in a row
  #allowed = false; // by the page
  /** @type {Look} */ #look = { fit: true, drag: false, quality: 6, compression: 2 };
  #hasShaken = false;
  #hasAskedAgain = false;
  #frames = 0;
  #pings = 0;
  #deadAt = 0; // without a byte until then
  #heardAt = 0;
  #pingedAt = 0;
  #pulsedAt = 0;

  /** @param {DisplayNeeds} with_ */
  constructor(with_) {
    super();
    this.#with = with_;
  }

  /** For reports: how much has come, through which of the server's streams. */
  traffic = { bytes: 0, stream: 0, server: "" };

  /** @returns {DisplayView} */
  get view() {
    const { state, waiting, step } = this.#view;
    const isNext = ["connecting", "reconnecting"].includes(state) && (waiting || step === "session");
    return { ...this.#view, attempt: Math.min(DIALS, this.#count + Number(isNext)) };
  }

  /** Whether input reaches the desktop. */
  get driving() {
    return this.#view.state === "live" && this.#allowed && this.#view.mode === "control";
  }

  start() {
    this.#begin("connecting");
  }

  /** The only clean end. */
  stop() {
    this.#finish("stopped");
  }

  /** A new row of dials. */
  restart() {
    if (!this.#channel) this.#begin("reconnecting");
  }

  /** Online again, visible again, or "Try now". */
  wake() {
    if (this.#view.waiting) this.#prepare();
    else if (this.#view.state === "disconnected") this.restart();
    else if (this.#channel) this.#doubt();
  }

  /** The desktop is not hidden from watchers (any more). */
  shown() {
    if (this.#view.why === 4411) this.restart();
  }

  /** One may watch, says the API: it was the stream's login that ended. Believed once, until there is a picture. */
  permitted() {
    if (this.#view.why !== 4403 || this.#hasAskedAgain) return;
    this.#hasAskedAgain = true;
    this.restart();
  }

  /** @param {boolean} isAllowed */
  allow(isAllowed) {
    if (isAllowed === this.#allowed) return;
    this.#allowed = isAllowed;
    this.#applyMode();
  }

  /** @param {Look} look */
  show(look) {
    this.#look = look;
    const { fit: scaleViewport, quality: qualityLevel, compression: compressionLevel } = look;
    Object.assign(this.#rfb ?? {}, { scaleViewport, qualityLevel, compressionLevel });
  }

  focus() {
    this.#rfb?.focus({ preventScroll: true });
  }

  /** @param {string} text */
  paste(text) {
    this.#rfb?.clipboardPasteFrom(text);
  }

  /** Down, up, or by default one after the other. @param {number} keysym @param {boolean} [down] */
  key(keysym, down) {
    this.#rfb?.sendKey(keysym, null, down);
  }

  /** @param {DisplayState} state */
  #begin(state) {
    this.#count = this.#failures = 0;
    Object.assign(this.#view, { state, why: "", fault: "" });
    this.#prepare();
  }

  async #prepare() {
    const generation = ++this.#generation;
    this.#with.timers.clear(this.#timer.retry);
    this.#set({ waiting: false, step: "session" });
    // At first, noVNC may still come while the server connects to the desktop.
    const [isReady, answer] = await Promise.all([!this.#failures || this.#loadNovnc(), this.#with.session()]);
    if (generation !== this.#generation) return;
    if (!isReady) this.#wait(0, "program");
    else if (answer.ok) this.#dial(answer.data.session_url);
    else this.#unanswered(answer);
  }

  /** noVNC waits for a codec probe while it loads, which hangs in some browsers. */
  async #loadNovnc() {
    const { timers, load } = this.#with;
    /** @type {any} */ let timer;
    const late = new Promise((resolve) => (timer = timers.set(() => resolve(null), LOAD_MS)));
    this.#Rfb = await Promise.race([load(), late]).catch(() => null);
    timers.clear(timer);
    return this.#Rfb !== null;
  }

  /** @param {Answer} answer */
  #unanswered({ status, retryAfterMs }) {
    if (status === 0) this.#wait(retryAfterMs, "network");
    else if (status === 429 || status >= 500) this.#wait(retryAfterMs, "busy");
    else this.#finish(FINAL[status] ?? 4400);
  }

  /** @param {number} atLeast ms @param {DisplayView["offline"]} offline */
  #wait(atLeast, offline = "") {
    const ms = Math.max(atLeast, backoff(this.#failures++, this.#with.random));
    this.#timer.retry = this.#with.timers.set(() => this.#prepare(), ms);
    this.#set({ state: "reconnecting", waiting: true, offline });
  }

  /** @param {string} url */
  #dial(url) {
    this.#count++;
    this.#frames = 0;
    this.#hasShaken = false;
    this.#closing = { code: 0, reason: "" };
    this.#heard();
    this.#pulsedAt = this.#pingedAt = this.#heardAt;
    this.#channel = new Channel(url, this.#with.open, {
      open: () => (this.#heard(), this.#set({ step: "desktop" })),
      text: (message) => this.#told(message),
      bytes: (data) => this.#drew(data),
      end: (code, reason) => this.#closed(code, reason),
    });
    this.#pulse();
    this.#set({ offline: "", step: "socket" });
    this.#attach(this.#channel);
  }

  /** @param {Channel} channel */
  async #attach(channel) {
    if (!this.#Rfb) await this.#loadNovnc();
    if (channel !== this.#channel) return;
    if (!this.#Rfb) return this.#drop(), this.#wait(0, "program");
    const rfb = new this.#Rfb(this.#with.screen, channel, { shared: true });
    this.#rfb = rfb;
    Object.assign(rfb, { resizeSession: false, showDotCursor: true, background: "transparent" });
    this.show(this.#look);
    this.#applyMode();
    rfb.addEventListener("connect", () => ((this.#hasShaken = true), this.#set({ step: "picture" })));
    rfb.addEventListener("clipboard", ({ detail }) => this.emit("clipboard", detail));
    // noVNC gave up by itself: it did not understand what came.
    rfb.addEventListener("disconnect", () => {
      if (this.#rfb !== rfb) return;
      this.#rfb = null;
      this.#closed();
    });
    channel.flow();
  }

  /** @param {any} message */
  #told(message) {
    this.#heard();
    const { type, id } = message;
    if (type === "ping") this.#channel?.say({ type: "pong", id });
    if (type === "pong" && id === this.#pings) this.#set({ delay: this.#with.now() - this.#pingedAt });
    if (type === "closing") this.#closing = message;
    if (type === "clipboard_too_large" || type === "clipboard_refused") this.emit("unpasted", message);
    if (type === "hello" || type === "control") this.#toldMode(message);
  }

  /** @param {any} message */
  #toldMode(message) {
    const { mode, reason, stream, server } = message;
    Object.assign(this.#view, { mode, pause: mode === "control" ? "" : (reason ?? "") });
    if (stream) Object.assign(this.traffic, { stream, server });
    this.emit("control", message);
    this.#applyMode();
  }

  /** @param {ArrayBuffer} data */
  #drew(data) {
    this.#heard();
    this.traffic.bytes += data.byteLength;
    if (!this.#hasShaken || this.#view.state === "live") return;
    const isPicture = new Uint8Array(data)[0] === 0; // FramebufferUpdate (RFC 6143, 7.6.1)
    if (isPicture || this.#frames++ > 0) this.#goLive();
  }

  #goLive() {
    this.#failures = 0;
    this.#hasAskedAgain = false;
    this.#timer.steady = this.#with.timers.set(() => ((this.#count = 0), this.#set({})), STEADY_MS);
    this.#set({ state: "live", why: "", fault: "" });
    this.emit("live");
    this.#ping();
  }

  #closed(code = 1006, reason = "") {
    const said = this.#closing;
    const why = [1005, 1006].includes(code) ? said.code || code : code;
    // Of the server's words only the name of the step that failed is used.
    const fault = /^(\w+):/.exec(said.reason || reason)?.[1] ?? "";
    Object.assign(this.#view, { why, fault });
    this.#drop();
    const action = actionFor(why);
    if (action === "stop" || action === "wait") this.#finish(why);
    else if (this.#count >= DIALS) this.#finish(why, "disconnected");
    // After a live picture, #failures is 0: every retry is "at once", but for the jitter.
    else this.#wait(action === "retry_later" ? CAP_MS / 2 : 0);
  }

  /** @param {number | string} why @param {DisplayState} state */
  #finish(why, state = UNAVAILABLE.includes(why) ? "unavailable" : "ended") {
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
    for (const timer of [this.#timer.steady, this.#timer.pulse]) this.#with.timers.clear(timer);
    this.#channel = this.#rfb = null;
    Object.assign(this.#view, { mode: "observe", pause: "", delay: null });
    rfb?.disconnect(); // before noVNC hears of the close: it would complain on the console
    channel.end();
  }

  #heard() {
    this.#heardAt = this.#with.now();
    this.#deadAt = this.#heardAt + SILENCE_MS;
  }

  #pulse() {
    const now = this.#with.now();
    const hasSlept = now - this.#pulsedAt > 4 * PULSE_MS;
    this.#pulsedAt = now;
    this.#timer.pulse = this.#with.timers.set(() => this.#pulse(), PULSE_MS);
    if (!this.#with.visible()) this.#deadAt = now + SILENCE_MS; // silence is judged only where time was watched
    if (hasSlept) this.#doubt();
    else if (now >= this.#deadAt) this.#closed();
    else if (now - this.#pingedAt >= PING_MS) this.#ping();
  }

  /** It may have died unseen: it has ANSWER_MS to show that it lives. */
  #doubt() {
    this.#deadAt = this.#with.now() + ANSWER_MS;
    this.#ping();
  }

  #ping() {
    this.#pingedAt = this.#with.now();
    this.#channel?.say({ type: "ping", id: ++this.#pings });
  }

  #applyMode() {
    const isOpen = this.#allowed && this.#view.mode === "control";
    Object.assign(this.#rfb ?? {}, { viewOnly: !isOpen, focusOnClick: isOpen });
    this.#set({});
  }

  /** @param {Partial<DisplayView>} changes */
  #set(changes) {
    Object.assign(this.#view, changes);
    this.emit("change");
  }
}

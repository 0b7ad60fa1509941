import { backoff } from "./backoff.js";
import { Emitter } from "./emitter.js";

/**
 * This tab's side of the lease: taking control or asking for it, renewing it, losing it, letting go.
 *
 *     none -- take --> taking -- 200 --> held -- release, lost --> none
 *       |                 `-- refused, release --> none
 *       `-- handed over, as it has asked --> held
 *
 * - The latest call wins: what is granted to an older wish (generation) is released at once, with
 *   its epoch; so is a lease that the page holds without having asked. An open request of this tab
 *   is having asked, also from before a reload; a withdrawn one is not.
 * - A take waits for the acquires and releases under way: the same holder would be given the same
 *   epoch again, which a late release would end.
 * - The lapse of an unrenewed lease is no loss: renewing goes on, and may resume it.
 *
 * Events: `change`; `lost` (a Loss); `kept` ({by, epoch, reason}), the holder keeps control that was
 * asked for; `refused` ({what, status, code}); `signedout`.
 */

const TICK_MS = 15_000;

export class Lease extends Emitter {
  /** @type {LeaseView["wants"]} */ wants = "none";
  /** @type {number | null} */ epoch;
  /** @type {Control | null} the newest one known */ control = null;
  failing = false; // the last renewal got no answer
  lapsed = false; // it ran out unrenewed, and may still be resumed
  #with;
  #generation = 0;
  /** @type {Set<Promise<unknown>>} acquires and releases without an answer yet */ #underWay = new Set();
  /** @type {Promise<Answer<Grant>> | null} */ #renewal = null;
  #isAsking = false; // the request has no answer yet
  #handsBack = false;
  #hasWithdrawn = false; // what is still told of this tab's request does not count
  /** @type {number | null} the epoch that was let go of last */ #letGoOf = null;
  #clockOffset = 0;
  #failures = 0;
  #period = 120_000; // until the server tells it
  /** @type {any} */ #timer;
  /** @type {any} */ #letGoTimer;

  /** @param {LeaseNeeds} with_ */
  constructor(with_) {
    super();
    this.#with = with_;
    this.epoch = with_.epoch;
  }

  start() {
    this.wants = this.epoch === null ? "none" : "held";
  }

  /** Control stays reserved: closing a tab does not release. But who leaves asks no more. */
  stop() {
    if (this.wants === "taking") this.#generation++;
    if (this.request || this.#isAsking) this.#with.api.change("request/withdraw", {}, { keepalive: true });
    this.#hasWithdrawn = true;
    this.#clearTimers();
  }

  /** The server's time now, as far as known. */
  get serverNow() {
    return this.#with.now() + this.#clockOffset;
  }

  /** This tab's open request for control. */
  get request() {
    return this.#hasWithdrawn ? undefined : this.control?.requests.find((each) => each.this_client);
  }

  /** Take control; `move` takes it from another tab of the same person. */
  async take({ move = false } = {}) {
    const generation = this.#want("taking");
    while (this.#underWay.size) await Promise.allSettled(this.#underWay);
    if (generation !== this.#generation) return;
    const answer = await this.#acquire(move ? { move } : {});
    if (generation !== this.#generation || answer.ok) return;
    // The answer got lost, yet the stream has told that it was yes.
    if (answer.status === 0 && this.control?.this_client) return this.#adopt(this.control);
    this.#want("none");
    this.#refused("take", answer);
  }

  /** Let go, for the page at once, for the server as soon as it can be reached. */
  release() {
    const epoch = this.epoch ?? (this.control?.this_client ? this.control.epoch : null);
    this.#want("none");
    if (epoch !== null) this.#letGo(epoch);
  }

  /** Hand back to the agent that waits. @param {string} outcome @param {string} note */
  async handBack(outcome, note) {
    this.#handsBack = true; // no loss, even where the stream is first
    this.#clearTimers();
    const answer = await this.#with.api.change("release", { epoch: this.epoch ?? this.control?.epoch, outcome, note });
    this.#handsBack = false;
    if (!answer.ok) return this.wake(), this.#refused("handback", answer);
    this.#want("none");
    this.hear({ control: answer.data });
  }

  /** End the control that has this `epoch`; `close`, and let nobody have any. @param {string} note @param {number} epoch */
  force(note, epoch, close = false) {
    return this.#change("force", { epoch, force: true, note, ...(close && { close }) }, "release");
  }

  /** Let a closed desktop be controlled again. */
  open() {
    return this.#change("open");
  }

  /** Against the end by a limit. */
  prolong() {
    return this.#change("keep", { epoch: this.epoch });
  }

  /** Hide the desktop from all who watch, or show it again. @param {boolean} hidden */
  hide(hidden) {
    return this.#change("hide", { epoch: this.epoch, hidden });
  }

  /** Ask the holder for control. @param {string} message */
  async ask(message) {
    this.#hasWithdrawn = false;
    this.#isAsking = true;
    await this.#change("ask", { message }, "request");
    this.#isAsking = false;
  }

  /** Take the request back, for the page at once. */
  async withdraw() {
    this.#hasWithdrawn = true;
    this.emit("change");
    if (await this.#change("withdraw", {}, "request/withdraw")) return;
    this.#hasWithdrawn = false;
    this.emit("change");
  }

  /** Hand control over to who has asked, or keep it. @param {number} request @param {boolean} accept */
  answer(request, accept) {
    return this.#change("answer", { epoch: this.epoch, request, accept }, "request/answer");
  }

  /** Permission for one dial: a renewal if control is ours, else to observe. @returns {Promise<Answer<{session_url: string}>>} */
  async session() {
    const renewed = this.epoch === null ? null : await this.renew();
    // Without control, or refused, or released meanwhile.
    return renewed && this.epoch !== null ? renewed : this.#with.api.observe();
  }

  /** Renew now; calls at the same time share one. @returns {Promise<Answer<Grant>>} */
  renew() {
    this.#renewal ??= this.#renewOnce().finally(() => (this.#renewal = null));
    return this.#renewal;
  }

  /** Visible or online again: do not wait for timers. */
  wake() {
    if (this.epoch !== null) this.renew();
  }

  /** Read who has control. */
  async refresh() {
    const answer = await this.#with.api.control();
    if (answer.ok) this.hear({ control: answer.data });
    return answer;
  }

  /** Take in what the server tells, in whatever order it arrives. @param {News} news */
  hear(news) {
    const { control } = news;
    const asked = this.request;
    if (!this.#learn(control)) return;
    if (this.wants === "none") this.#heardWatching(news, asked);
    else if (this.epoch !== null && control.this_client) this.#keep(Math.max(control.epoch, this.epoch));
    else if (this.epoch !== null && control.epoch >= this.epoch && !this.#handsBack) this.#ended(news);
    this.emit("change");
  }

  /** @param {News} news @param {Asked | undefined} asked until now */
  #heardWatching({ control, reason, by }, asked) {
    if (control.this_client && control.epoch !== this.#letGoOf) {
      if (!asked && !this.#isAsking) return void this.#letGo(control.epoch);
      this.#want("taking");
      this.#adopt(control);
      this.renew(); // which tells how often to
    } else if (asked && !this.request && control.controller === "user") {
      if (reason === "withdrawn" && by === asked.by) return; // our own doing, or the server's for us
      this.emit("kept", { by: control.controlled_by, epoch: control.epoch, reason });
    }
  }

  /** Whether it is news. @param {Control} control */
  #learn(control) {
    const { version = 0, server_time = "" } = this.control ?? {};
    // Requests and limits come and go within a version. ISO 8601 sorts as text.
    const isOld = control.version === version ? control.server_time < server_time : control.version < version;
    if (isOld) return false;
    this.control = control;
    if (control.server_time > server_time) this.#clockOffset = Date.parse(control.server_time) - this.#with.now();
    return true;
  }

  /** @param {News} news */
  #ended({ control, reason, by, note }) {
    const why = reason ?? control.last_end?.reason ?? "taken";
    if (why !== "expired") return this.#lose(why, control, { ...(by && { by }), ...(note && { note }) });
    this.lapsed = true; // only the server knows whether it may still be resumed
    this.renew();
  }

  async #renewOnce() {
    const generation = this.#generation;
    const answer = await this.#acquire({ epoch: /** @type {number} */ (this.epoch) });
    if (generation !== this.#generation || answer.ok) return answer;
    if (answer.status === 401) this.emit("signedout");
    else if (isRefusal(answer.status)) this.#lose(answer.status === 409 ? answer.code : "access_ended", answer.current);
    else {
      this.failing = true;
      this.#arm(Math.max(answer.retryAfterMs, backoff(this.#failures++, this.#with.random)));
      this.emit("change");
    }
    return answer;
  }

  /** @param {{epoch?: number, move?: boolean}} body */
  #acquire(body) {
    return this.#track(async () => {
      const generation = this.#generation;
      /** @type {Answer<Grant>} */
      const answer = await this.#with.api.change("acquire", body);
      if (answer.current) this.#learn(answer.current);
      if (answer.ok && generation === this.#generation) this.#adopt(answer.data);
      else if (answer.ok) await this.#letGo(answer.data.epoch);
      return answer;
    });
  }

  /** @param {Control & {renew_after_seconds?: number}} grant */
  #adopt(grant) {
    this.#learn(grant);
    this.wants = "held";
    this.#keep(Math.max(grant.epoch, this.epoch ?? 0));
    this.failing = this.lapsed = false;
    this.#failures = 0;
    this.#period = (grant.renew_after_seconds ?? 0) * 1000 || this.#period;
    this.#arm(this.#period);
    this.emit("change");
  }

  /** @param {number | null} epoch */
  #keep(epoch) {
    if (epoch === this.epoch) return;
    this.epoch = epoch;
    this.#with.remember(epoch);
  }

  /** @param {string} reason @param {Control | null} control @param {Partial<Loss>} [told] by the stream */
  #lose(reason, control, told) {
    const end = control?.last_end;
    this.#want("none");
    this.emit("lost", { at: control?.server_time, ...(end?.reason === reason && end), ...told, reason });
  }

  /** A call that is answered with Control. @param {Asking} what @param {object} [body] @param {string} call */
  async #change(what, body, call = what) {
    const answer = await this.#with.api.change(call, body);
    if (answer.ok) this.hear({ control: answer.data });
    else this.#refused(what, answer);
    return answer.ok;
  }

  /** @param {Asking} what @param {Answer} answer */
  #refused(what, { status, code, current }) {
    const { wants } = this;
    if (current) this.hear({ control: current });
    if (status === 401) this.emit("signedout");
    else if (wants === this.wants) this.emit("refused", { what, status, code }); // else the loss has been told
  }

  /** Returns the new generation. @param {"none" | "taking"} wants */
  #want(wants) {
    this.wants = wants;
    this.#keep(null);
    this.failing = this.lapsed = false;
    this.#failures = 0;
    this.#letGoOf = null;
    this.#clearTimers();
    const generation = ++this.#generation;
    this.emit("change");
    return generation;
  }

  #clearTimers() {
    for (const timer of [this.#timer, this.#letGoTimer]) this.#with.timers.clear(timer);
  }

  /** @param {number} epoch */
  #letGo(epoch, failures = 0) {
    this.#letGoOf = epoch;
    return this.#track(async () => {
      const generation = this.#generation;
      const { ok, status, data, retryAfterMs } = await this.#with.api.change("release", { epoch });
      if (ok) return this.hear({ control: data });
      if (isRefusal(status) || status === 401 || generation !== this.#generation) return;
      const wait = Math.max(retryAfterMs, backoff(failures, this.#with.random));
      this.#letGoTimer = this.#with.timers.set(() => this.#letGo(epoch, failures + 1), wait);
    });
  }

  /** @template T @param {() => Promise<T>} call */
  #track(call) {
    const tracked = call().finally(() => this.#underWay.delete(tracked));
    this.#underWay.add(tracked);
    return tracked;
  }

  /** Renew in `ms`, looking at the clock often: a long timer would sleep on with the laptop. @param {number} ms */
  #arm(ms, due = this.#with.now() + ms) {
    const { now, timers } = this.#with;
    const look = () => {
      const left = due - now();
      if (left <= 0 || left > Math.max(this.#period, TICK_MS)) this.renew();
      else this.#arm(left, due);
    };
    timers.clear(this.#timer);
    this.#timer = timers.set(look, Math.min(ms, TICK_MS));
  }
}

/** A plain no: everything else may pass with time. @param {number} status */
function isRefusal(status) {
  return status >= 400 && status < 500 && ![401, 408, 429].includes(status);
}

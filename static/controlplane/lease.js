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
 *   its epoch; so is a lease that the page finds itself the holder of without having asked. An open
 *   request of this tab is having asked, also from before a reload; a withdrawn one is not.
 * - A take waits for the acquires and releases under way: the same holder would be given the same
 *   epoch again, which a late release would end.
 * - `session()` gives permission for one dial: a renewal if control is ours, else to observe.
 * - The lapse of an unrenewed lease is no loss: renewing goes on, and may resume it.
 *
 * Events: `change`; `lost` (a Loss); `kept` ({by, epoch, reason}), the holder keeps control that was
 * asked for; `refused` ({what, status, code}); `signedout`. Times are ms.
 */

const TICK_MS = 15_000;
const DEFAULT_RENEW_MS = 120_000;

export class Lease extends Emitter {
  /** @type {LeaseView["wants"]} */
  wants = "none";
  /** @type {number | null} */
  epoch = null;
  /** @type {Control | null} the newest one known */
  control = null;
  /** The last renewal got no answer. */
  failing = false;
  /** The lease ran out unrenewed; it may still be resumed. */
  lapsed = false;

  #with;
  #generation = 0;
  /** @type {Set<Promise<unknown>>} acquires and releases that have no answer yet */
  #underWay = new Set();
  /** @type {Promise<Answer<Grant>> | null} */
  #renewal = null;
  #isAsking = false; // the request has no answer yet
  #hasWithdrawn = false; // what is still told of this tab's request does not count
  /** @type {number | null} the epoch that was let go of last */
  #letGoOf = null;
  #clockOffset = 0;
  #failures = 0;
  #due = 0;
  #period = DEFAULT_RENEW_MS;
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
    this.#with.timers.clear(this.#timer);
    this.#with.timers.clear(this.#letGoTimer);
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

  /** End the control of whoever has it now; `close`, and let nobody have it. @param {string} note */
  force(note, close = false) {
    const epoch = this.control?.epoch;
    return this.#change("force", "release", { ...(epoch && { epoch }), force: true, note, ...(close && { close }) });
  }

  /** Let a closed desktop be controlled again. */
  open() {
    return this.#change("open", "open", {});
  }

  /** Keep control that is about to end by a limit. */
  prolong() {
    return this.#change("keep", "keep", { epoch: this.epoch });
  }

  /** Ask the holder for control. @param {string} message */
  async ask(message) {
    this.#hasWithdrawn = false;
    this.#isAsking = true;
    await this.#change("ask", "request", { message });
    this.#isAsking = false;
  }

  /** Take the request back, for the page at once. */
  async withdraw() {
    this.#hasWithdrawn = true;
    this.emit("change");
    if (await this.#change("withdraw", "request/withdraw", {})) return;
    this.#hasWithdrawn = false;
    this.emit("change");
  }

  /** Hand control over to who has asked, or keep it. @param {number} request @param {boolean} accept */
  answer(request, accept) {
    return this.#change("answer", "request/answer", { epoch: this.epoch, request, accept });
  }

  /** Permission to open one stream, fresh from the server. @returns {Promise<Answer<{session_url: string}>>} */
  async session() {
    if (this.epoch === null) return this.#with.api.observe();
    const answer = await this.renew();
    if (this.epoch === null) return this.#with.api.observe(); // refused, or released meanwhile
    return answer;
  }

  /** Renew now; calls at the same time share one. @returns {Promise<Answer<Grant>>} */
  renew() {
    this.#renewal ??= this.#renewOnce().finally(() => (this.#renewal = null));
    return this.#renewal;
  }

  /** The page has become visible or is online again: do not wait for timers. */
  wake() {
    if (this.epoch !== null) this.renew();
  }

  /** Read who has control. @returns {Promise<Answer<Control>>} */
  async refresh() {
    const answer = await this.#with.api.control();
    if (answer.ok) this.hear({ control: answer.data });
    return answer;
  }

  /** Take in what the server tells, in whatever order it arrives. @param {News} news @returns {void} */
  hear(news) {
    const { control } = news;
    const asked = this.request;
    if (!this.#learn(control)) return;
    if (this.wants === "none") this.#heardWatching(news, asked);
    else if (this.epoch !== null && control.this_client) this.#keep(Math.max(control.epoch, this.epoch));
    else if (this.epoch !== null && control.epoch >= this.epoch) this.#ended(news);
    this.emit("change");
  }

  /** @param {News} news @param {Asked | undefined} asked until now */
  #heardWatching({ control, reason, by }, asked) {
    if (control.this_client && control.epoch !== this.#letGoOf) {
      if (asked || this.#isAsking) this.#handedOver(control);
      else this.#letGo(control.epoch);
    } else if (asked && !this.request && control.controller === "user") {
      const isOwnDoing = reason === "withdrawn" && by === asked.by; // also what the server did for us
      if (!isOwnDoing) this.emit("kept", { by: control.controlled_by, epoch: control.epoch, reason });
    }
  }

  /** @param {Control} control @returns {boolean} whether it is news */
  #learn(control) {
    const known = this.control;
    const isNewer = !known || control.server_time > known.server_time; // ISO 8601 sorts as text
    // Requests and limits come and go within a version.
    const isSame = control.version === known?.version;
    if (known && (isSame ? control.server_time < known.server_time : control.version < known.version)) return false;
    this.control = control;
    if (isNewer) this.#clockOffset = Date.parse(control.server_time) - this.#with.now();
    return true;
  }

  /** @param {Control} control */
  #handedOver(control) {
    this.#want("taking");
    this.#adopt(control);
    this.renew(); // which tells how often to
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
    const generation = this.#generation;
    const settle = async () => {
      /** @type {Answer<Grant>} */
      const answer = await this.#with.api.change("acquire", body);
      if (answer.current) this.#learn(answer.current);
      if (answer.ok && generation === this.#generation) this.#adopt(answer.data);
      else if (answer.ok) await this.#letGo(answer.data.epoch);
      return answer;
    };
    return this.#track(settle());
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

  /** A call that is answered with Control. @param {Asking} what @param {string} call @param {object} body */
  async #change(what, call, body) {
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

  /** @param {"none" | "taking"} wants @returns {number} the new generation */
  #want(wants) {
    this.wants = wants;
    this.#keep(null);
    this.failing = this.lapsed = false;
    this.#failures = 0;
    this.#letGoOf = null;
    this.#with.timers.clear(this.#timer);
    this.#with.timers.clear(this.#letGoTimer);
    this.#generation++;
    this.emit("change");
    return this.#generation;
  }

  /** @param {number} epoch */
  #letGo(epoch, failures = 0) {
    this.#letGoOf = epoch;
    return this.#track(this.#releaseOnce(epoch, failures));
  }

  /** @param {number} epoch @param {number} failures */
  async #releaseOnce(epoch, failures) {
    const generation = this.#generation;
    const answer = await this.#with.api.change("release", { epoch });
    if (answer.ok) return this.hear({ control: answer.data });
    if (isRefusal(answer.status) || answer.status === 401 || generation !== this.#generation) return;
    const wait = Math.max(answer.retryAfterMs, backoff(failures, this.#with.random));
    this.#letGoTimer = this.#with.timers.set(() => this.#letGo(epoch, failures + 1), wait);
  }

  /** @template T @param {Promise<T>} call @returns {Promise<T>} */
  #track(call) {
    const tracked = call.finally(() => this.#underWay.delete(tracked));
    this.#underWay.add(tracked);
    return tracked;
  }

  /** @param {number} ms */
  #arm(ms) {
    this.#due = this.#with.now() + ms;
    this.#sleep(ms);
  }

  /** In short steps with a look at the clock: a long timer would sleep on with the laptop. @param {number} ms */
  #sleep(ms) {
    this.#with.timers.clear(this.#timer);
    this.#timer = this.#with.timers.set(() => this.#look(), Math.min(ms, TICK_MS));
  }

  #look() {
    const left = this.#due - this.#with.now();
    if (left <= 0 || left > Math.max(this.#period, TICK_MS)) this.renew();
    else this.#sleep(left);
  }
}

/** @param {number} status @returns {boolean} a plain no; everything else may pass with time */
function isRefusal(status) {
  return status >= 400 && status < 500 && ![401, 408, 429].includes(status);
}

import { askerOf, limitOf } from "./view.js";

/**
 * Answers whoever asks for control. Who asks may change under the hand that presses "Hand over": a press
 * right after that was meant for the one before, and does not count. Keeping control is always meant,
 * also against its end by a limit.
 */

const SETTLE_MS = 700;

export class Asker {
  #lease;
  #now;
  #shown = 0; // the request that the page shows
  #answered = 0;
  #changedAt = -Infinity;

  /** @param {LeaseView & Pick<import("./lease.js").Lease, "answer" | "prolong">} lease @param {() => number} now ms */
  constructor(lease, now) {
    this.#lease = lease;
    this.#now = now;
  }

  /** What is shown now. Whoever follows one that was answered comes as expected. */
  show() {
    const id = askerOf(this.#lease)?.id ?? 0;
    if (id && ![0, this.#answered, id].includes(this.#shown)) this.#changedAt = this.#now();
    this.#shown = id;
  }

  /** @param {boolean} accept */
  answer(accept) {
    const asker = askerOf(this.#lease);
    if (!asker || (accept && this.#now() - this.#changedAt < SETTLE_MS)) return;
    this.#lease.answer(asker.id, accept);
    this.#answered = asker.id;
  }

  /** Against whoever asks for it, and against its end by a limit. */
  keep() {
    this.answer(false);
    if (limitOf(this.#lease)) this.#lease.prolong();
  }
}

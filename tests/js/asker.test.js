/** Whose request a press answers, where who asks changes under the hand. */

import assert from "node:assert/strict";
import test from "node:test";

import { Asker } from "../../static/controlplane/asker.js";
import { HELD, IN_8_S, MINE, NOW, OLIVES } from "./views.js";

const OTTOS = { ...OLIVES, id: 8, by: "Otto" };

/** The page of a holder, who is shown each request for some time. */
class Holder {
  now = NOW;
  /** @type {[number, boolean][]} */ answers = [];
  prolonged = 0;
  #lease = {
    ...HELD,
    answer: async (/** @type {number} */ id, /** @type {boolean} */ accept) => (this.answers.push([id, accept]), true),
    prolong: async () => ((this.prolonged += 1), true),
  };
  asker = new Asker(this.#lease, () => this.now);

  /** @param {Asked[]} requests */
  see(...requests) {
    return this.#see({ requests });
  }

  /** That control is about to end. */
  seeTheEnd() {
    return this.#see({ ends: { reason: "idle", at: IN_8_S } });
  }

  /** @param {Partial<Control>} told */
  #see(told) {
    this.#lease.control = { ...MINE, ...told };
    this.asker.show();
    return this;
  }

  /** @param {number} ms */
  wait(ms) {
    this.now += ms;
    return this;
  }
}

test("the one that is shown is answered", () => {
  const holder = new Holder().see(OLIVES);
  holder.asker.answer(true);
  assert.deepEqual(holder.answers, [[7, true]]);
});

test("a press right after somebody else has come into that place hands nothing over, but keeps", () => {
  const holder = new Holder().see(OLIVES).see(OTTOS).wait(699);
  holder.asker.answer(true);
  assert.deepEqual(holder.answers, []);
  holder.asker.answer(false);
  assert.deepEqual(holder.answers, [[8, false]]);
});

test("once one has had the time to see who it is, the press counts", () => {
  const holder = new Holder().see(OLIVES).see(OTTOS).wait(700).see(OTTOS);
  holder.asker.answer(true);
  assert.deepEqual(holder.answers, [[8, true]]);
});

test("whoever follows one that was answered comes as expected", () => {
  const holder = new Holder().see(OLIVES);
  holder.asker.answer(false);
  holder.see(OTTOS).asker.answer(true);
  assert.deepEqual(holder.answers, [[7, false], [8, true]]);
});

test("keeping control refuses whoever asks, and puts off an end by a limit", () => {
  const holder = new Holder().see(OLIVES);
  holder.asker.keep();
  assert.deepEqual([holder.answers, holder.prolonged], [[[7, false]], 0]);
  holder.seeTheEnd().asker.keep();
  assert.deepEqual([holder.answers, holder.prolonged], [[[7, false]], 1]);
});

test("where nobody asks there is nothing to answer", () => {
  const holder = new Holder().see(OLIVES).see();
  holder.asker.answer(false);
  assert.deepEqual(holder.answers, []);
});

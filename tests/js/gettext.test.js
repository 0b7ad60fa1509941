import assert from "node:assert/strict";
import test from "node:test";

/** With a catalogue that marks what it translates: all that is said has to bear the mark. */

/** @type {any} */ (globalThis).django = {
  gettext: (/** @type {string} */ words) => `«${words}»`,
  ngettext: (/** @type {string} */ one, /** @type {string} */ many, /** @type {number} */ count) => `«${count === 1 ? one : many}»`,
};
const { gettext, ngettext } = await import("../../static/controlplane/gettext.js");
const { offersOf, statusOf } = await import("../../static/controlplane/view.js");
const { delayOf, factsOf } = await import("../../static/controlplane/news.js");
const { holderOf, viewersOf } = await import("../../static/controlplane/cards.js");
const { AGENTS, ANNAS, CLOSED, ELSEWHERE, FREE, HELD, MINE, OLIVES, page, reconnecting } = await import("./views.js");

const MARKED = /^«.*»[^«»]*$/su;

test("values are filled into what was translated", () => {
  assert.equal(gettext("%(by)s has %(what)s", { by: "Anna", what: "%(by)s" }), "«Anna has %(by)s»");
  assert.equal(ngettext("%(count)s more", "%(count)s of more", 2), "«2 of more»");
});

const VIEWS = [
  page({ display: { state: "connecting", step: "desktop" }, slow: true }),
  page({ display: reconnecting({ why: 4502, fault: "banner", attempt: 2 }) }),
  page({ display: reconnecting({ offline: "network" }), lease: HELD }),
  page({ display: { state: "disconnected", why: 1006 } }),
  page({ display: { state: "ended", why: 4403 } }),
  page({ signedOut: true }),
  page({ guest: true, signedOut: true }),
  ...[FREE, ANNAS, AGENTS, CLOSED, ELSEWHERE, null].map((control) => page({ lease: { control } })),
  page({ lease: HELD, display: { mode: "control" } }),
  page({ lease: { ...HELD, failing: true }, display: { mode: "control" } }),
  page({ lease: { wants: "taking" } }),
  page({ away: 180_000 }),
  page({ notice: { kind: "lost", reason: "forced", by: "Root", note: "lunch" } }),
  page({ notice: { kind: "kept", by: "Anna", epoch: 1 } }),
  page({ notice: { kind: "refused", what: "take", status: 409, code: "held" } }),
];
for (const view of VIEWS) {
  const status = statusOf(view);
  test(`it goes through the translations: ${status}`, () => assert.match(status, MARKED));
}

test("so does all that stands beside the status", () => {
  const asked = page({ lease: { ...HELD, control: { ...MINE, requests: [OLIVES] } }, display: { delay: 12 } });
  const watching = page({ lease: { control: ANNAS }, display: { delay: 1200 } });
  for (const words of [asked.asks, asked.aloud, delayOf(asked), factsOf(watching), delayOf(watching), holderOf(ANNAS), viewersOf(2, { status: "", width: null, height: null })]) {
    assert.match(words, MARKED);
  }
  assert.match(offersOf(watching).take?.why ?? "", MARKED);
});

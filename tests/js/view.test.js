import assert from "node:assert/strict";
import test from "node:test";

import { awayAt, delayOf, duration, factsOf, isOver, wordsOf } from "../../static/controlplane/news.js";
import { clock, offersOf, statusOf } from "../../static/controlplane/view.js";
import { AGENTS, ANNAS, CLOSED, ELSEWHERE, FREE, HELD, IN_8_S, MINE, NONE, NOW, OLIVES, OWN, page, reconnecting, UNTIL } from "./views.js";

for (const [sentence, view] of /** @type {[string, PageView][]} */ ([
  ["Connecting to Desk 12…", page({ display: { state: "connecting" } })],
  ["Connecting to Desk 12… Waiting for the first picture.", page({ display: { state: "connecting" }, slow: true })],
  ["You are watching. Nobody has control.", page()],
  ["You are watching. Anna has control.", page({ lease: { control: ANNAS } })],
  ["An agent has control. You can take over.", page({ lease: { control: AGENTS } })],
  ["You have control in another tab.", page({ lease: { control: ELSEWHERE } })],
  [
    "Anna’s control ended without handing back. Agents wait until somebody has had control.",
    page({ lease: { control: { ...FREE, parked: { by: "Anna", reason: "expired", at: UNTIL } } } }),
  ],
  ["You are watching.", page({ lease: { control: null } })],
  ["Taking control…", page({ lease: { wants: "taking" } })],
  [
    "Taking control… Waiting for the previous controller to let go.",
    page({ display: { pause: "waiting" }, lease: HELD }),
  ],
  ["Asked Anna for control. Waiting for an answer…", page({ lease: { control: ANNAS, request: OWN } })],
  ["Anna keeps control.", page({ lease: { control: ANNAS }, notice: { kind: "kept", by: "Anna", epoch: 4, reason: "declined" } })],
  ["Anna did not answer.", page({ lease: { control: ANNAS }, notice: { kind: "kept", by: "Anna", epoch: 4, reason: "unanswered" } })],
  ["Root User has closed this desktop to control: “repairs”. You are watching.", page({ lease: { control: CLOSED } })],
  ["You have control.", page({ display: { mode: "control" }, lease: HELD })],
  [
    "You have control. Nobody else sees the desktop.",
    page({ display: { mode: "control" }, lease: { ...HELD, control: { ...ANNAS, this_client: true, hidden: { at: UNTIL } } } }),
  ],
  [
    "Anna hides the desktop from watchers. It comes back by itself.",
    page({ display: { state: "unavailable", why: 4411 }, lease: { control: { ...ANNAS, hidden: { at: UNTIL } } } }),
  ],
  ["Reconnecting… (attempt 2 of 10)", page({ display: reconnecting({ attempt: 2, why: 1006 }) })],
  [`No connection to the server. Control stays yours until ${clock(UNTIL)}.`, page({ display: reconnecting({ offline: "network" }), lease: HELD })],
  [
    `No connection to the server. Control was yours until ${clock(UNTIL)}. Trying again.`,
    page({ display: reconnecting({ offline: "network" }), lease: HELD, serverNow: NOW + 600_000 }),
  ],
  ["No connection to the server. Trying again.", page({ display: reconnecting({ offline: "network" }) })],
  ["The server is busy. Trying again.", page({ display: reconnecting({ offline: "busy" }) })],
  [
    "The desktop cannot be reached: nothing answers at its address. Reconnecting… (attempt 3 of 10)",
    page({ display: reconnecting({ attempt: 3, why: 4502, fault: "connect" }) }),
  ],
  ["The desktop cannot be reached: it does not answer.", page({ display: { state: "disconnected", why: 4504 } })],
  ["The desktop cannot be reached: it does not answer. Reconnecting… (attempt 2 of 10)", page({ display: reconnecting({ attempt: 2, why: 4504, fault: "banner" }) })],
  ["You are signed out.", page({ signedOut: true })],
  [
    `Could not renew control. Trying again; it ends at ${clock(UNTIL)}.`,
    page({ display: { mode: "control" }, lease: { ...HELD, failing: true } }),
  ],
  ["Your control ran out before it could be renewed. Trying again.", page({ lease: { ...HELD, lapsed: true } })],
])) {
  test(`the status says “${sentence}”`, () => assert.equal(statusOf(view), sentence));
}

/** @param {string} reason @param {Partial<Loss>} [told] */
const lost = (reason, told = {}) => page({ notice: { kind: "lost", reason, by: "Root User", note: null, at: UNTIL, ...told } });

test("a forced end names who, the note and what now", () => {
  assert.equal(
    statusOf(lost("forced", { note: "maintenance" })),
    "Root User ended your control: “maintenance”. You are watching.",
  );
});

test("every reason for an end has a sentence of its own", () => {
  const reasons = ["preempted", "moved", "released", "access_ended", "handed_over", "idle", "max_hold", "expired", "taken"];
  const sentences = reasons.map((reason) => statusOf(lost(reason)));
  assert.equal(new Set(sentences).size, reasons.length);
  for (const sentence of sentences) assert.match(sentence, /\. You are watching\.$/);
});

test("a stream tells that somebody has acquired what had run out, a renewal that it is taken", () => {
  assert.equal(statusOf(lost("acquired")), statusOf(lost("taken")));
});

test("an end for a reason nobody has thought of is still told", () => {
  assert.equal(statusOf(lost("solar_flare", { by: null })), "Your control ended. You are watching.");
});

test("when it was is told beside it", () => {
  assert.equal(factsOf(lost("forced")), `at ${clock(UNTIL)}`);
});

test("a refused take is told in words, never in the server's", () => {
  for (const status of [0, 400, 403, 409, 429, 500, 503]) {
    const sentence = statusOf(page({ notice: { kind: "refused", what: "take", status, code: "Traceback" } }));
    assert.match(sentence, /^Could not take control/);
    assert.doesNotMatch(sentence, /Traceback|\d{3}/);
  }
});

for (const [what, status, code, sentence] of /** @type {[string, number, string, string][]} */ ([
  ["take", 409, "held", "Could not take control: somebody else has it now."],
  ["take", 409, "held_elsewhere", "Could not take control: you have it in another tab."],
  ["take", 409, "closed", "Could not take control: the desktop is closed to control."],
  ["ask", 409, "not_needed", "Could not ask for control: it is free, or yours already."],
  ["ask", 429, "asked_lately", "Your last request has only just ended. Wait a moment before you ask again."],
  ["answer", 409, "not_asked", "Could not answer the request: it is not open any more."],
  ["keep", 0, "network", "Could not keep control: the server did not answer."],
  ["withdraw", 503, "unavailable", "Could not withdraw the request: the server is busy. Try again."],
  ["open", 403, "forbidden", "Could not open the desktop to control again: you have no permission."],
  ["force", 400, "invalid", "Could not end control. Reload the page and try again."],
  ["view", 0, "", "Could not show size and quality: the server did not answer."],
])) {
  test(`a refused ${what} (${code}) is told in words`, () => {
    assert.equal(statusOf(page({ notice: { kind: "refused", what, status, code } })), sentence);
  });
}

test("what the holder could not do is told although the holder has control", () => {
  const view = page({ display: { mode: "control" }, lease: HELD, notice: { kind: "refused", what: "keep", status: 0, code: "network" } });
  assert.equal(statusOf(view), "Could not keep control: the server did not answer.");
  assert.deepEqual(offersOf(view).dismiss, { why: "" });
});

test("that somebody keeps control is told for as long as it is so", () => {
  /** @type {Notice} */
  const notice = { kind: "kept", by: "Anna", epoch: 4 };
  assert.equal(isOver(notice, { ...NONE, control: ANNAS }), false);
  assert.equal(isOver(notice, { ...NONE, control: { ...ANNAS, epoch: 5 } }), true);
  assert.equal(isOver(notice, { ...NONE, control: FREE }), true);
  assert.equal(isOver(notice, { ...NONE, control: ANNAS, request: OWN }), true);
});

test("a loss is told until there is control again, or a new request", () => {
  /** @type {Notice} */
  const notice = { kind: "lost", reason: "forced" };
  assert.equal(isOver(notice, NONE), false);
  assert.equal(isOver(notice, HELD), true);
});

test("every final close code has a sentence", () => {
  for (const why of [4400, 4403, 4404, 4410, 4411, 4511]) {
    assert.notEqual(statusOf(page({ display: { state: "ended", why } })), "The connection has ended.");
  }
});

test("a failed control status leaves the status standing and says so beside it", () => {
  const view = page({ lease: { control: ANNAS }, stale: true });
  assert.equal(statusOf(view), "You are watching. Anna has control.");
  assert.match(factsOf(view), /could not be checked/);
});

test("since when and how long without input is told of others only", () => {
  const control = { ...ANNAS, last_input_at: "2026-03-01T13:57:00Z", holder_connected: false };
  const since = clock(ANNAS.acquired_at);
  assert.equal(factsOf(page({ lease: { control } })), `since ${since} · no input for 3 min · their window is closed`);
  assert.equal(factsOf(page({ lease: HELD, display: { mode: "control" } })), "");
});

test("of an agent, nothing is made up: it may have no window here, and other ways to the desktop", () => {
  const control = { ...AGENTS, last_input_at: null, holder_connected: false };
  assert.equal(factsOf(page({ lease: { control } })), `builder · since ${clock(AGENTS.acquired_at)}`);
});

test("durations are short words", () => {
  assert.deepEqual([500, 59_000, 180_000, 7_200_000].map(duration), ["1 s", "59 s", "3 min", "2 h"]);
});

/** @param {PageView} view @returns {string[]} the buttons that can be pressed */
function pressable(view) {
  return Object.entries(offersOf(view))
    .filter(([name, offer]) => offer && !offer.why && !["fullscreen", "view"].includes(name))
    .map(([name]) => name)
    .sort();
}

test("whoever may only watch is offered nothing that controls", () => {
  const control = { ...FREE, can: { observe: true, control: false, force: false } };
  assert.deepEqual(pressable(page({ lease: { control } })), []);
});

test("a free desktop may be taken, also from an agent", () => {
  for (const control of [FREE, AGENTS]) assert.ok(pressable(page({ lease: { control } })).includes("take"));
});

test("while a person has control the button is there and says why it does nothing", () => {
  assert.equal(offersOf(page({ lease: { control: ANNAS } })).take?.why, "Anna has control. Ask for it, or wait until it is free.");
});

test("a person is asked for control; an agent, a free or a closed desktop is not", () => {
  assert.deepEqual(offersOf(page({ lease: { control: ANNAS } })).ask, { why: "" });
  for (const control of [FREE, AGENTS, CLOSED, ELSEWHERE]) assert.equal(offersOf(page({ lease: { control } })).ask, null);
  const can = { observe: true, control: false, force: false };
  assert.equal(offersOf(page({ lease: { control: { ...ANNAS, can } } })).ask, null);
});

test("who has asked may withdraw instead", () => {
  const offers = offersOf(page({ lease: { control: ANNAS, request: OWN } }));
  assert.equal(offers.ask, null);
  assert.deepEqual(offers.withdraw, { why: "" });
});

test("a closed desktop says why it cannot be taken, and managers may open it", () => {
  const offers = offersOf(page({ lease: { control: CLOSED } }));
  assert.equal(offers.take?.why, "Root User has closed this desktop to control: “repairs”.");
  assert.equal(offers.open, null);
  const can = { observe: true, control: true, force: true };
  assert.deepEqual(offersOf(page({ lease: { control: { ...CLOSED, can } } })).open, { why: "" });
});

/** @param {Partial<Control>} told @param {Partial<PageView>} [rest] what a holder is told */
const holding = (told, rest = {}) => page({ display: { mode: "control" }, lease: { ...HELD, control: { ...MINE, ...told } }, ...rest });
/** @param {"idle" | "max_hold"} reason @param {string} [at] */
const ending = (reason, at = "2026-03-01T14:00:20Z") => holding({ ends: { reason, at } });

for (const [sentence, view] of /** @type {[string, PageView][]} */ ([
  ["", holding({})],
  ["Olive asks for control.", holding({ requests: [OLIVES] })],
  ["Olive asks for control: “please”.", holding({ requests: [{ ...OLIVES, message: "please" }] })],
  ["Olive asks for control. 1 more asks for it.", holding({ requests: [OLIVES, { ...OLIVES, by: "Otto" }] })],
  ["Olive asks for control. 2 more ask for it.", holding({ requests: [OLIVES, OLIVES, OLIVES] })],
  [
    "You have given no input: control goes to Otto in 8 s. Press any key or move the mouse to keep it. 1 more asks for it.",
    holding({ requests: [OLIVES, { ...OLIVES, by: "Otto", granted_at: IN_8_S }] }),
  ],
  [
    "You have given no input: control goes to Olive in 0 s. Press any key or move the mouse to keep it.",
    holding({ requests: [{ ...OLIVES, granted_at: IN_8_S }] }, { serverNow: NOW + 60_000 }),
  ],
  ["Control ends in 20 s for lack of input.", ending("idle")],
  ["Control ends in 20 s because it has lasted as long as this desktop allows.", ending("max_hold")],
  ["", ending("idle", "2026-03-01T14:01:00Z")],
  ["Olive asks for control. Control ends in 8 s for lack of input.", holding({ requests: [OLIVES], ends: { reason: "idle", at: IN_8_S } })],
  ["Anna is away. Control comes to you in 8 s.", page({ lease: { control: ANNAS, request: { ...OWN, granted_at: IN_8_S } } })],
  ["", page({ lease: { control: ANNAS, request: OWN } })],
  ["", page({ lease: { control: { ...ANNAS, requests: [OLIVES], ends: { reason: "idle", at: IN_8_S } } } })],
  ["", page({ display: reconnecting({}), lease: { ...HELD, control: { ...MINE, requests: [OLIVES] } } })],
])) {
  test(`the bar says “${sentence}” to ${view.lease.wants === "held" ? "the holder" : "a watcher"}, ${view.display.state}`, () => {
    assert.equal(wordsOf(view).asks, sentence);
  });
}

test("what is announced has no seconds, so that it stays the same while they count down", () => {
  const told = { requests: [{ ...OLIVES, by: "Otto", granted_at: IN_8_S }], ends: /** @type {const} */ ({ reason: "idle", at: "2026-03-01T14:00:20Z" }) };
  const aloud = "You have given no input: control goes to Otto soon. Press any key or move the mouse to keep it. Control ends soon for lack of input.";
  for (const later of [0, 1_000, 7_000]) assert.equal(wordsOf(holding(told, { serverNow: NOW + later })).aloud, aloud);
  assert.notEqual(wordsOf(holding(told)).asks, wordsOf(holding(told, { serverNow: NOW + 1_000 })).asks);
});

test("an end that input may have moved since it was told is not announced", () => {
  const view = { ...holding({ ends: { reason: "idle", at: "2026-03-01T14:01:00Z" } }), serverNow: NOW + 50_000 };
  assert.equal(wordsOf(view).asks, "");
  assert.equal(offersOf(view).keep, null);
});

test("whoever is asked may hand over or keep control; who is about to lose it, keep it", () => {
  assert.deepEqual(pressable(holding({ requests: [OLIVES] })).filter((name) => ["hand", "keep"].includes(name)), ["hand", "keep"]);
  assert.deepEqual(pressable(ending("idle")).filter((name) => ["hand", "keep"].includes(name)), ["keep"]);
  assert.equal(offersOf(holding({})).keep, null);
});

test("what happened while nobody looked, or came out right after it, is told as such", () => {
  const absence = { hiddenAt: NOW, backAt: NOW + 180_000 };
  assert.equal(awayAt(NOW + 60_000, absence), 180_000);
  assert.equal(awayAt(NOW + 185_000, absence), 180_000);
  assert.equal(awayAt(NOW - 1, absence), 0, "it was seen happening");
  assert.equal(awayAt(NOW + 240_000, absence), 0, "it happened afterwards");
  assert.equal(awayAt(NOW + 1_000, { hiddenAt: NOW, backAt: NOW + 5_000 }), 0, "a glance aside is no absence");
  assert.equal(awayAt(NOW + 1_000, { hiddenAt: NOW, backAt: 0 }), 0, "still hidden");
  assert.equal(awayAt(NOW, { hiddenAt: 0, backAt: 0 }), 0, "never hidden");
});

test("a picture that stands still says from when it is, and how old", () => {
  const words = wordsOf(page({ frozenAt: NOW - 90_000 }));
  assert.match(words.age, /^Picture from .*, 2 min old$/);
  assert.equal(wordsOf(page()).age, "");
});

test("a refusal is of now, however long one was away", () => {
  const notice = /** @type {Notice} */ ({ kind: "refused", what: "take", status: 409, code: "held" });
  assert.equal(statusOf(page({ notice, away: 180_000 })), "Could not take control: somebody else has it now.");
});

test("control in another tab may be moved here", () => {
  const offers = offersOf(page({ lease: { control: ELSEWHERE } }));
  assert.equal(offers.take, null);
  assert.deepEqual(offers.move, { why: "" });
});

test("while control is asked for, it may be released already", () => {
  const offers = offersOf(page({ lease: { wants: "taking" } }));
  assert.equal(offers.take, null);
  assert.deepEqual(offers.release, { why: "" });
});

test("only who may, is offered to end another's control", () => {
  const can = { observe: true, control: true, force: true };
  assert.deepEqual(offersOf(page({ lease: { control: { ...ANNAS, can } } })).force, { why: "" });
  assert.equal(offersOf(page({ lease: { control: ANNAS } })).force, null);
  assert.equal(offersOf(page({ lease: { control: { ...FREE, can } } })).force, null);
  assert.equal(offersOf(page({ lease: { ...HELD, control: { ...MINE, can } } })).force, null);
});

test("keys may be sent only while they arrive", () => {
  assert.equal(offersOf(page()).cad?.why, "Take control first.");
  assert.equal(offersOf(page({ lease: HELD, display: reconnecting({}) })).cad?.why, "Wait for the connection.");
  assert.equal(offersOf(page({ lease: HELD, display: { mode: "control" } })).cad?.why, "");
});

test("the desktop is hidden from watchers only where the holder's own input arrives", () => {
  assert.equal(offersOf(page({ lease: HELD, display: { mode: "control" } })).hide?.why, "");
  assert.equal(offersOf(page({ lease: HELD, display: reconnecting({}) })).hide?.why, "Wait for the connection.");
  assert.equal(offersOf(page()).hide, null);
});

test("signed out, the only thing to do is to sign in", () => {
  assert.deepEqual(pressable(page({ signedOut: true, display: { state: "ended", why: "signed_out" } })), ["signin"]);
});

test("Try now is there while the page waits, Reconnect when it has given up", () => {
  assert.ok(pressable(page({ display: reconnecting({ waiting: true }) })).includes("retry"));
  assert.ok(pressable(page({ display: { state: "disconnected", why: 1006 } })).includes("reconnect"));
  assert.deepEqual(offersOf(page()).reconnect, null);
});

test("where watching is not permitted any more, there is nothing to press", () => {
  assert.deepEqual(pressable(page({ display: { state: "ended", why: 4403 } })), []);
});

test("the delay is told while the picture is live", () => {
  assert.equal(delayOf(page({ display: { delay: 23.6 } })), "Round trip 24 ms");
  assert.equal(delayOf(page({ display: { delay: 0 } })), "Round trip 1 ms");
  assert.equal(delayOf(page({ display: { delay: 1940 } })), "Round trip 1.9 s");
  assert.equal(delayOf(page()), "");
  assert.equal(delayOf(page({ display: { delay: 24, state: "reconnecting" } })), "");
});

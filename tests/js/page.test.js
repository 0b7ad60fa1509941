import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";

import { CLOSE_CODES } from "../../static/controlplane/closecodes.js";
import { offersOf, statusOf } from "../../static/controlplane/view.js";
import { AGENTS, ANNAS, CLOSED, ELSEWHERE, FREE, HELD, MINE, OLIVES, OWN, page, reconnecting } from "./views.js";

/**
 * docs/page.md against the code: what is said, and which buttons can be pressed, in every state, to
 * somebody who may take control.
 */

const OWN_DOC = new URL("../../docs/page.md", import.meta.url);
const TIME = /\d{1,2}:\d{2}( [AP]M)?/g;

/** @type {Control} */
const ROOTS = { ...ANNAS, controlled_by: "Root User" };
/** Who has control after each way of losing it. @type {Record<string, Control>} */
const AFTER = {
  forced: FREE,
  preempted: ROOTS,
  moved: ELSEWHERE,
  handed_over: ROOTS,
  idle: FREE,
  max_hold: FREE,
  access_ended: FREE,
  taken: ROOTS,
};

const HELP = { by: "builder", reason: "captcha", at: "2026-03-01T13:50:00Z" };
const PARKED = { by: "Anna", reason: "expired", at: "2026-03-01T13:50:00Z" };

/** @type {[string, PageView][]} */
const STATES = [
  ["opening the page", page({ display: { state: "connecting" } })],
  ["the same, for more than 3 s", page({ display: { state: "connecting", step: "desktop" }, slow: true })],
  ["nobody has control", page()],
  ["a person has control", page({ lease: { control: ANNAS } })],
  ["an agent has control", page({ lease: { control: AGENTS } })],
  ["the agent in control asks for a person", page({ lease: { control: { ...AGENTS, agent: "builder", help: HELP } } })],
  ["an agent asks for a person", page({ lease: { control: { ...FREE, agent: "builder", help: HELP } } })],
  ["parked", page({ lease: { control: { ...FREE, agent: "builder", parked: PARKED } } })],
  ["another tab of one's own has it", page({ lease: { control: ELSEWHERE } })],
  ["the desktop is closed to control", page({ lease: { control: CLOSED } })],
  ["asking for control", page({ lease: { control: ANNAS, request: OWN } })],
  ["taking control", page({ lease: { wants: "taking" } })],
  ["waiting for the previous controller", page({ display: { pause: "waiting" }, lease: HELD })],
  ["in control", page({ display: { mode: "control" }, lease: HELD })],
  ["in control, and an agent waits", page({ display: { mode: "control" }, lease: { ...HELD, control: { ...MINE, agent: "builder" } } })],
  ["in control, hidden from watchers", page({ display: { mode: "control" }, lease: { ...HELD, control: { ...MINE, hidden: { at: "" } } } })],
  ["in control, and somebody asks for it", page({ display: { mode: "control" }, lease: { ...HELD, control: { ...MINE, requests: [OLIVES] } } })],
  ["in control, but not renewed", page({ display: { mode: "control" }, lease: { ...HELD, failing: true } })],
  ["control has run out", page({ lease: { ...HELD, lapsed: true } })],
  ["the server cannot read leases", page({ display: { pause: "fenced" }, lease: HELD })],
  ...Object.keys(AFTER).map(lost),
  ["lost while the page was hidden", page({ notice: { kind: "lost", reason: "forced", by: "Root User", note: "" }, away: 180_000 })],
  ["reconnected while the page was hidden", page({ display: { mode: "control" }, lease: HELD, away: 180_000 })],
  ["refused: held", page({ lease: { control: ANNAS }, notice: { kind: "refused", what: "take", status: 409, code: "held" } })],
  ["a person hides the desktop", page({ display: { state: "unavailable", why: 4411 }, lease: { control: { ...ANNAS, hidden: { at: "" } } } })],
  ["no network", page({ display: reconnecting({ offline: "network", waiting: true }) })],
  ["no network, in control", page({ display: reconnecting({ offline: "network", waiting: true }), lease: HELD })],
  ["ten dials in a row have failed", page({ display: { state: "disconnected", why: 1006 } })],
  ["signed out", page({ display: { state: "ended", why: "signed_out" }, signedOut: true })],
  ["the control link has ended", page({ display: { state: "ended", why: "signed_out" }, signedOut: true, guest: true })],
];

/** @param {string} reason @returns {[string, PageView]} */
function lost(reason) {
  return [`lost: ${reason}`, page({ lease: { control: AFTER[reason] }, notice: { kind: "lost", reason, by: "Root User", note: "" } })];
}

/** @param {string} code @returns {[string, PageView]} */
function closed(code) {
  const why = Number(code);
  const action = CLOSE_CODES[why];
  if (action.startsWith("retry")) return [`closed with ${code}`, page({ display: reconnecting({ why, attempt: 1, waiting: true }) })];
  const state = [4404, 4411, 4511].includes(why) ? "unavailable" : "ended";
  const isJustOpened = why === 4411; // by the time that it knows who has control, it says who hides the desktop
  return [`closed with ${code}`, page({ display: { state, why }, ...(isJustOpened && { lease: { control: null } }) })];
}

/** @param {[string, PageView]} row */
function line([name, view]) {
  const offers = Object.entries(offersOf(view));
  const buttons = offers.filter(([act, offer]) => offer?.why === "" && !["fullscreen", "view"].includes(act)).map(([act]) => act);
  return `| ${name} | ${statusOf(view).replace(TIME, "14:05")} | ${buttons.join(", ")} |`;
}

test("docs/page.md tells what the page says and offers in every state", () => {
  const rows = [...STATES, ...Object.keys(CLOSE_CODES).filter((code) => code > "4000").map(closed)].map(line);
  const told = readFileSync(OWN_DOC, "utf8").split("\n").filter((each) => /^\| (?!state \|)/.test(each));
  assert.deepEqual(told, rows);
});

import { wordsOf } from "../../static/controlplane/news.js";

/** What the page may be looking at: leases, displays, and all of it together. */

export const NOW = Date.parse("2026-03-01T14:00:00Z");
export const UNTIL = "2026-03-01T14:05:00Z";

/** @type {Control} */
export const FREE = {
  controller: "none",
  controlled_by: null,
  yours: false,
  this_client: false,
  epoch: 4,
  version: 9,
  acquired_at: null,
  expires_at: null,
  server_time: "2026-03-01T14:00:00Z",
  holder_connected: null,
  last_input_at: null,
  last_end: null,
  ends: null,
  hidden: null,
  accepts_clipboard: true,
  closed: null,
  agent: null,
  help: null,
  parked: null,
  handed_back: null,
  requests: [],
  can: { observe: true, control: true, force: false },
};
/** @type {Control} */
export const ANNAS = { ...FREE, controller: "user", controlled_by: "Anna", acquired_at: "2026-03-01T13:50:00Z", expires_at: UNTIL };
/** @type {Control} */
export const AGENTS = { ...ANNAS, controller: "agent", controlled_by: "builder" };
/** @type {Control} */
export const MINE = { ...ANNAS, yours: true, this_client: true };
/** @type {Control} */
export const ELSEWHERE = { ...ANNAS, yours: true };
/** @type {Control} */
export const CLOSED = { ...FREE, closed: { by: "Root User", note: "repairs", at: "2026-03-01T13:50:00Z" } };
/** @type {Asked} */
export const OLIVES = {
  id: 7,
  by: "Olive",
  message: "",
  yours: false,
  this_client: false,
  asked_at: "2026-03-01T13:59:50Z",
  granted_at: null,
};
/** @type {Asked} */
export const OWN = { ...OLIVES, yours: true, this_client: true };
export const IN_8_S = "2026-03-01T14:00:08Z";

/** @type {DisplayView} */
const LIVE = {
  state: "live",
  attempt: 0,
  waiting: false,
  offline: "",
  why: "",
  fault: "",
  step: "picture",
  mode: "observe",
  pause: "",
  delay: null,
};
/** @type {LeaseView} */
export const NONE = { wants: "none", epoch: null, control: FREE, failing: false, lapsed: false, request: undefined };
/** @type {LeaseView} */
export const HELD = { ...NONE, wants: "held", epoch: 5, control: MINE };

/** @param {{display?: Partial<DisplayView>, lease?: Partial<LeaseView>} & Partial<Omit<PageView, "display" | "lease">>} [parts] */
export function page({ display, lease, ...rest } = {}) {
  const view = {
    name: "Desk 12",
    display: { ...LIVE, ...display },
    lease: { ...NONE, ...lease },
    notice: null,
    told: "",
    cause: "",
    slow: false,
    signedOut: false,
    guest: false,
    stale: false,
    away: 0,
    frozenAt: 0,
    now: NOW,
    serverNow: NOW,
    ...rest,
  };
  return { ...view, ...wordsOf(view) };
}

/** @param {Partial<DisplayView>} display @returns {Partial<DisplayView>} */
export const reconnecting = (display) => ({ state: "reconnecting", ...display });

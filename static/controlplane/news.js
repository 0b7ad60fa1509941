import { gettext, ngettext } from "./gettext.js";
import { askerOf, clock, limitOf, othersRequests, present, quoted } from "./view.js";

/**
 * What is told of a holder, and now and then: who has control since when, how it was lost, what the
 * server refused, who asks for it, why there is no picture. Pure. Loaded once somebody has control, or
 * the server has said why: before, there is none of it.
 */

const AWAY_MS = 10_000;
const FOUND_MS = 15_000; // what has happened meanwhile comes out when the page comes back

/** @type {Words} */
const FAULTS = {
  resolve: gettext("its address was not found"),
  connect: gettext("nothing answers at its address"),
  banner: gettext("what answers there is not a VNC server"),
  security: gettext("it wants a kind of sign-in that is not known here"),
  authentication: gettext("it refused the server’s password"),
  ServerInit: gettext("it did not tell its size"),
  4502: gettext("it refused or closed the connection"),
  4504: gettext("it does not answer"),
};

/** @type {Words} */
const FINAL = {
  signed_out: gettext("You are signed out."),
  4400: gettext("The page and the server misunderstood each other. Reconnect; if it happens again, reload the page."),
  4403: gettext("You may not watch this desktop (any more). Ask one of its managers."),
  4404: gettext("The desktop cannot be reached: it does not exist or is switched off. Ask an administrator."),
  4410: gettext("This desktop was opened in a newer window. This one has stopped."),
  4411: gettext("The desktop is hidden from watchers for now. It comes back by itself."),
  4511: gettext("The desktop cannot be reached: it refused the server’s password. Tell an administrator."),
};

/** @type {Words} */
const BEFORE_RETRY = {
  4413: gettext("The connection is too slow."),
  4429: gettext("Too many windows are open."),
};

/** @type {(by: string) => Words} */
const losses = (by) => ({
  forced: gettext("%(by)s ended your control", { by }),
  preempted: gettext("%(by)s took over", { by }),
  taken: gettext("%(by)s took control after yours had run out", { by }),
  acquired: gettext("%(by)s took control after yours had run out", { by }), // the same, told by the stream
  moved: gettext("Your control moved to another tab of yours"),
  released: gettext("Your control was released"),
  access_ended: gettext("Your sign-in or permission ended, and with it your control"),
  handed_over: gettext("Your control was handed over to %(by)s", { by }),
  idle: gettext("Your control ended for lack of input"),
  max_hold: gettext("Your control had lasted as long as allowed"),
  expired: gettext("Your control ran out"),
});

/** @type {Words} */
const ACTS = {
  take: gettext("take control"),
  force: gettext("end control"),
  open: gettext("open the desktop to control again"),
  hide: gettext("change who sees the desktop"),
  keep: gettext("keep control"),
  ask: gettext("ask for control"),
  withdraw: gettext("withdraw the request"),
  answer: gettext("answer the request"),
  handback: gettext("hand back"),
  clipboard: gettext("open the clipboard"),
  keyboard: gettext("open the keyboard"),
  combos: gettext("show more keys"),
  cad: gettext("send Ctrl+Alt+Del"),
  view: gettext("show size and quality"),
  fullscreen: gettext("fill the screen"),
};

/** By the server's code, or else by status. @type {Words} */
const REFUSALS = {
  held: gettext("somebody else has it now"),
  held_elsewhere: gettext("you have it in another tab"),
  closed: gettext("the desktop is closed to control"),
  not_needed: gettext("it is free, or yours already"),
  not_asked: gettext("it is not open any more"),
  nothing_to_hand_back: gettext("no agent waits any more"),
  0: gettext("the server did not answer"),
  403: gettext("you have no permission"),
  404: gettext("you have no permission"),
  429: gettext("the server is busy. Try again"),
};

/** @type {Words} */
const ENDS = { idle: gettext("for lack of input"), max_hold: gettext("because it has lasted as long as this desktop allows") };

/** @param {number} ms */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return gettext("%(seconds)s s", { seconds });
  if (seconds < 5400) return gettext("%(minutes)s min", { minutes: Math.round(seconds / 60) });
  return gettext("%(hours)s h", { hours: Math.round(seconds / 3600) });
}

/** All of it, as of now. @param {PageView} view */
export function wordsOf(view) {
  return {
    told: toldOf(view),
    cause: causeOf(view),
    asks: asksOf(view, secondsUntil(view.serverNow)),
    aloud: asksOf(view, () => gettext("soon")),
    facts: factsOf(view),
    delay: delayOf(view),
    age: ageOf(view),
  };
}

/** What has happened, with how long one was away when it did. @param {PageView} view */
function toldOf(view) {
  const { notice, away, lease } = view;
  const told = notice ? sentenceOf(notice) : agentsWords(lease);
  if (!away || notice?.kind === "refused") return told;
  const time = duration(away);
  if (told) return gettext("While you were away (%(time)s): %(told)s", { time, told });
  return `${gettext("While you were away (%(time)s), the picture was reconnected.", { time })} ${present(view)}`;
}

/** How old a picture is that stands still. @param {PageView} view */
function ageOf({ frozenAt, now }) {
  if (!frozenAt) return "";
  const time = clock(new Date(frozenAt).toISOString());
  return gettext("Picture from %(time)s, %(age)s old", { time, age: duration(now - frozenAt) });
}

/** What an agent waits for, told to those who watch. @param {LeaseView} lease */
function agentsWords({ wants, request, control }) {
  if (wants !== "none" || request || !control) return "";
  const { help, parked, agent } = control;
  if (help) return `${asksForYou(help)} ${whoHasIt(control)}`;
  return parked ? whoWaits(parked.by ?? gettext("Somebody"), agent) : "";
}

/** @param {string} by whose control ended @param {string | null} agent null where it may not come back */
function whoWaits(by, agent) {
  const ended = gettext("%(by)s’s control ended without handing back.", { by });
  const waits = agent
    ? gettext("Until somebody does, %(agent)s waits.", { agent })
    : gettext("Agents wait until somebody has had control.");
  return `${ended} ${waits}`;
}

/** @param {NonNullable<Control["help"]>} help */
function asksForYou({ by, reason }) {
  return `${gettext("%(agent)s asks for you", { agent: by ?? gettext("An agent") })}${quoted(reason)}`;
}

/** @param {Control} control */
function whoHasIt({ controller, controlled_by, can }) {
  if (controller === "none") return gettext("Nobody has control.");
  if (controller === "user") return gettext("%(name)s has control.", { name: controlled_by });
  return can.control ? gettext("You can take over.") : gettext("An agent has control.");
}

/** Why there is no picture; "" where only the network is to blame. @param {PageView} view */
function causeOf(view) {
  const { display, signedOut } = view;
  if (signedOut) return signedOutOf(view);
  if (display.state === "ended" || display.state === "unavailable") return ended(view);
  return unreachable(display) || (BEFORE_RETRY[display.why] ?? "");
}

/** @param {PageView} view */
function ended({ display, lease: { control } }) {
  const isHidden = display.why === 4411 && control?.hidden;
  if (isHidden) return gettext("%(name)s hides the desktop from watchers. It comes back by itself.", { name: control.controlled_by });
  return FINAL[display.why] ?? "";
}

/** @param {PageView} view */
function signedOutOf({ guest }) {
  return guest ? gettext("This link has ended. Ask for a new one.") : FINAL.signed_out;
}

/** @param {DisplayView} display */
function unreachable({ why, fault }) {
  if (why !== 4502 && why !== 4504) return "";
  const isSilent = why === 4504 && fault !== "connect"; // a desktop that hangs, whatever it was to say next
  const words = isSilent ? FAULTS[why] : (FAULTS[fault] ?? FAULTS[why]);
  return gettext("The desktop cannot be reached: %(fault)s.", { fault: words });
}

/** @param {Notice} notice */
function sentenceOf(notice) {
  if (notice.kind === "refused") return refusal(notice);
  if (notice.kind === "kept") return kept(notice);
  const lost = losses(notice.by || gettext("Somebody else"))[notice.reason] ?? gettext("Your control ended");
  return `${lost}${quoted(notice.note)} ${gettext("You are watching.")}`;
}

/** @param {{by: string | null, reason?: string | null}} notice */
function kept({ by, reason }) {
  return reason === "unanswered" ? gettext("%(by)s did not answer.", { by }) : gettext("%(by)s keeps control.", { by });
}

/** @param {{what: string, status: number, code: string}} notice */
function refusal({ what, status, code }) {
  if (code === "asked_lately") return gettext("Your last request has only just ended. Wait a moment before you ask again.");
  const why = REFUSALS[code] ?? REFUSALS[status < 500 ? status : 429];
  const act = ACTS[what];
  if (!why) return gettext("Could not %(act)s. Reload the page and try again.", { act });
  return gettext("Could not %(act)s: %(why)s.", { act, why });
}

/** How long nobody looked, in ms, if `at` fell into that time or right after it; else 0. @param {number} at @param {Absence} absence */
export function awayAt(at, { hiddenAt, backAt }) {
  const isPartOfIt = at >= hiddenAt && at < backAt + FOUND_MS;
  return isPartOfIt && backAt - hiddenAt >= AWAY_MS ? backAt - hiddenAt : 0;
}

/** The way to the server and back; not announced. @param {PageView} view */
export function delayOf({ display: { state, delay } }) {
  if (state !== "live" || delay === null) return "";
  if (delay < 1000) return gettext("Round trip %(time)s ms", { time: Math.max(1, Math.round(delay)) });
  return gettext("Round trip %(time)s s", { time: (delay / 1000).toFixed(1) });
}

/** Whether what is told has been overtaken by who has control now. @param {Notice | null} notice @param {LeaseView} lease */
export function isOver(notice, { wants, request, control }) {
  const keeps = control?.controller === "user" && notice?.kind === "kept" && control.epoch === notice.epoch;
  return wants !== "none" || Boolean(request) || (notice?.kind === "kept" && !keeps);
}

/** @typedef {(iso: string) => string} Left how long it is until then, in words */

/** @param {number} now @returns {Left} for the eye: it changes by the second, and is not announced */
function secondsUntil(now) {
  return (iso) => gettext("in %(seconds)s s", { seconds: Math.max(0, Math.ceil((Date.parse(iso) - now) / 1000)) });
}

/** What needs an answer, or comes by itself. @param {PageView} view @param {Left} left @returns {string} */
function asksOf({ display, lease }, left) {
  if (display.state !== "live") return "";
  const [asker, limit] = [askerOf(lease), limitOf(lease)];
  const granted = lease.request?.granted_at;
  if (granted) return gettext("%(by)s is away. Control comes to you %(left)s.", { by: lease.control?.controlled_by, left: left(granted) });
  return [
    asker && asked(asker, left),
    asker && others(othersRequests(lease).length - 1),
    limit && gettext("Control ends %(left)s %(why)s.", { left: left(limit.at), why: ENDS[limit.reason] }),
  ]
    .filter(Boolean)
    .join(" ");
}

/** @param {Asked} asker @param {Left} left */
function asked({ by, message, granted_at }, left) {
  if (!granted_at) return `${gettext("%(by)s asks for control", { by })}${quoted(message)}`;
  const values = { by, left: left(granted_at) };
  return gettext("You have given no input: control goes to %(by)s %(left)s. Press any key or move the mouse to keep it.", values);
}

/** @param {number} count */
function others(count) {
  return count && ngettext("%(count)s more asks for it.", "%(count)s more ask for it.", count);
}

/** Beside the status, not announced: it changes with time. @param {PageView} view @returns {string} */
export function factsOf({ display, lease, notice, stale, serverNow }) {
  if (display.state !== "live") return "";
  if (stale) return gettext("Who has control could not be checked just now.");
  if (notice?.kind === "lost" && notice.at) return gettext("at %(time)s", { time: clock(notice.at) });
  const control = lease.control;
  if (!control) return "";
  if (lease.wants === "held" && control.help) return `${gettext("%(agent)s waits", { agent: control.agent ?? "" })}${quoted(control.help.reason)}`;
  return control.controller !== "none" && lease.wants === "none" ? ofHolder(control, serverNow) : "";
}

/** Of an agent, which may have other ways to the desktop, only what is known. @param {Control} control @param {number} serverNow */
function ofHolder({ controller, controlled_by, acquired_at, last_input_at, holder_connected }, serverNow) {
  const isPerson = controller === "user";
  return [
    !isPerson && controlled_by,
    acquired_at && gettext("since %(time)s", { time: clock(acquired_at) }),
    last_input_at && gettext("no input for %(time)s", { time: duration(serverNow - Date.parse(last_input_at)) }),
    isPerson && !last_input_at && gettext("no input yet"),
    isPerson && holder_connected === false && gettext("their window is closed"),
  ]
    .filter(Boolean)
    .join(" · ");
}

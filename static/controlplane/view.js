import { DIALS } from "./backoff.js";
import { gettext } from "./gettext.js";

/**
 * What the page says and which buttons it offers, from the state of its parts. Pure. The server's
 * own words are never shown: codes become sentences here.
 */

const OVER = ["disconnected", "ended", "unavailable"];
/** @type {DisplayView["why"][]} */
const NO_RECONNECT = [4403, 4411, "stopped"];

const OFFLINE = {
  network: gettext("No connection to the server."),
  busy: gettext("The server is busy."),
  program: gettext("The display program could not be loaded."),
};

const STEPS = {
  session: gettext("the server’s permission"),
  socket: gettext("the server to open the connection"),
  desktop: gettext("the desktop to answer"),
  picture: gettext("the first picture"),
};

const WARNING_MS = 30_500; // the server tells of it 30 s before

/** @param {string | null | undefined} iso a time of day, as people here write it */
export function clock(iso) {
  if (!iso) return "";
  return new Date(iso).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** The one line that is announced. @param {PageView} view */
export function statusOf(view) {
  const { display, name, slow, cause, signedOut } = view;
  if (signedOut) return cause;
  switch (display.state) {
    case "connecting":
      return connecting(name, slow ? STEPS[display.step] : "");
    case "reconnecting":
      return reconnecting(view);
    case "disconnected":
      return cause || gettext("The connection is lost and could not be restored.");
    case "live":
      return view.told || present(view);
    default:
      return cause || gettext("The connection has ended.");
  }
}

/** @param {string} name @param {string} step that takes long */
function connecting(name, step) {
  const words = gettext("Connecting to %(name)s…", { name });
  return step ? `${words} ${gettext("Waiting for %(step)s.", { step })}` : words;
}

/** What the button says that hands back to the agent. @param {LeaseView} lease */
export function handingOf({ control }) {
  return control?.agent ? gettext("Hand back to %(name)s", { name: control.agent }) : "";
}

/** @param {PageView} view */
function reconnecting(view) {
  const { offline, attempt } = view.display;
  if (offline) return `${OFFLINE[offline]} ${reserved(view)}`;
  const words = gettext("Reconnecting… (attempt %(attempt)s of %(dials)s)", { attempt, dials: DIALS });
  return view.cause ? `${view.cause} ${words}` : words;
}

/** @param {PageView} view */
function reserved({ lease, serverNow }) {
  const end = lease.epoch === null ? null : lease.control?.expires_at;
  if (!end) return gettext("Trying again.");
  const time = clock(end);
  if (Date.parse(end) > serverNow) return gettext("Control stays yours until %(time)s.", { time });
  return gettext("Control was yours until %(time)s. Trying again.", { time });
}

/** How things are now. @param {PageView} view */
export function present(view) {
  const { wants, request, control } = view.lease;
  if (wants !== "none") return holding(view);
  if (request) return gettext("Asked %(name)s for control. Waiting for an answer…", { name: control?.controlled_by });
  return watching(control);
}

/** @param {PageView} view */
function holding({ lease, display }) {
  if (display.mode === "control") {
    const time = clock(lease.control?.expires_at);
    if (lease.failing) return gettext("Could not renew control. Trying again; it ends at %(time)s.", { time });
    return hidesOf(lease) ? gettext("You have control. Nobody else sees the desktop.") : gettext("You have control.");
  }
  if (display.pause === "waiting") return gettext("Taking control… Waiting for the previous controller to let go.");
  if (lease.wants === "taking") return gettext("Taking control…");
  if (display.pause === "fenced") return gettext("Input is paused: the server cannot check who has control. Control stays yours.");
  const hasLapsed = lease.lapsed || display.pause === "expired";
  return hasLapsed ? gettext("Your control ran out before it could be renewed. Trying again.") : gettext("Taking control…");
}

/** @param {Control | null} control */
function watching(control) {
  if (!control) return gettext("You are watching.");
  if (control.closed) return `${closed(control.closed)} ${gettext("You are watching.")}`;
  if (control.controller === "none") return gettext("You are watching. Nobody has control.");
  if (control.yours) return gettext("You have control in another tab.");
  if (control.controller === "user") return gettext("You are watching. %(name)s has control.", { name: control.controlled_by });
  const mayTake = control.can.control;
  return mayTake ? gettext("An agent has control. You can take over.") : gettext("You are watching. An agent has control.");
}

/** @param {NonNullable<Control["closed"]>} closing */
function closed({ by, note }) {
  return `${gettext("%(by)s has closed this desktop to control", { by: by ?? gettext("Somebody") })}${quoted(note)}`;
}

/** The end of a sentence. @param {string | null | undefined} words */
export function quoted(words) {
  return words ? `: “${words}”.` : ".";
}

/** Who asks this tab for control: first, who gets it by itself. @param {LeaseView} lease @returns {Asked | undefined} */
export function askerOf(lease) {
  const requests = othersRequests(lease);
  return requests.find((each) => each.granted_at) ?? requests[0];
}

/** @param {LeaseView} lease */
export function othersRequests({ wants, control }) {
  return wants === "held" && control?.this_client ? control.requests.filter((each) => !each.yours) : [];
}

/** The limit at which this tab's control is about to end. @param {LeaseView} lease @returns {Control["ends"]} */
export function limitOf({ wants, control }) {
  const ends = wants === "held" && control?.this_client ? control.ends : null;
  return ends && Date.parse(ends.at) - Date.parse(control?.server_time ?? "") < WARNING_MS ? ends : null;
}

/** Whether an agent waits for us. @param {LeaseView} lease */
export function handsBack({ wants, control }) {
  if (!control?.agent || !control.can.control) return false;
  if (wants === "held") return control.this_client;
  return wants === "none" && !control.controlled_by && (control.help ?? control.parked) !== null;
}

/** Whether this tab hides the desktop from all others. @param {LeaseView} lease */
export function hidesOf({ wants, control }) {
  return wants === "held" && Boolean(control?.this_client && control.hidden);
}

/** Which buttons are there, and why some cannot be pressed. @param {PageView} view @returns {Offers} */
export function offersOf(view) {
  const { display, lease, notice, signedOut, guest } = view;
  return {
    release: offer(lease.wants !== "none" && !signedOut && !handsBack(lease)),
    reconnect: offer(!signedOut && OVER.includes(display.state) && !NO_RECONNECT.includes(display.why)),
    retry: offer(display.waiting && !signedOut),
    signin: offer(signedOut && !guest),
    dismiss: offer(notice !== null && display.state === "live" && !signedOut),
    fullscreen: offer(true),
    view: offer(true),
    ...permitted(view),
  };
}

const PERMITTED = ["take", "move", "ask", "withdraw", "hand", "keep", "handback", "force", "open", "hide", "clipboard", "keyboard", "combos", "cad", "typed"];

/** What `can` decides. @param {PageView} view */
function permitted({ display, lease, signedOut }) {
  const control = lease.control;
  const isOver = signedOut || display.state === "ended" || display.why === 4404;
  if (!control || isOver) return Object.fromEntries(PERMITTED.map((name) => [name, null]));
  const why = whyNoKeys(display, lease);
  const keys = offer(control.can.control, why);
  return {
    ...waysToControl(display, lease, control),
    ...urgent(lease),
    handback: offer(handsBack(lease)),
    force: offer(control.can.force && control.controller !== "none" && !control.this_client),
    open: offer(control.can.force && control.closed !== null),
    hide: offer(lease.wants === "held" && control.this_client, why),
    clipboard: offer(control.can.control),
    keyboard: keys,
    combos: keys,
    cad: keys,
    typed: keys,
  };
}

/** @param {DisplayView} display @param {LeaseView} lease @param {Control} control */
function waysToControl(display, { wants, request }, control) {
  const mayTake = control.can.control && wants === "none";
  const isElsewhere = control.yours && !control.this_client;
  return {
    take: offer(mayTake && !isElsewhere, whyNotTake(display, control)),
    move: offer(mayTake && isElsewhere, whyNoPicture(display)),
    ask: offer(mayTake && isAnothers(control) && !request, whyNoPicture(display)),
  };
}

/** What waits for an answer. @param {LeaseView} lease */
function urgent(lease) {
  const isAsked = askerOf(lease) !== undefined;
  return {
    withdraw: offer(lease.request !== undefined),
    hand: offer(isAsked),
    keep: offer(isAsked || limitOf(lease) !== null),
  };
}

/** @param {boolean} isThere */
function offer(isThere, why = "") {
  return isThere ? { why } : null;
}

/** @param {DisplayView} display @param {Control} control */
function whyNotTake(display, control) {
  if (control.closed) return closed(control.closed);
  if (isAnothers(control)) return gettext("%(name)s has control. Ask for it, or wait until it is free.", { name: control.controlled_by });
  return whyNoPicture(display);
}

/** Whether it is another person's. @param {Control} control */
function isAnothers({ controller, yours }) {
  return controller === "user" && !yours;
}

/** @param {DisplayView} display */
function whyNoPicture({ state, why }) {
  return state === "live" || why === 4411 ? "" : gettext("Wait for the picture.");
}

/** @param {DisplayView} display @param {LeaseView} lease */
function whyNoKeys({ state, mode }, { wants }) {
  if (wants === "none") return gettext("Take control first.");
  return state === "live" && mode === "control" ? "" : gettext("Wait for the connection.");
}

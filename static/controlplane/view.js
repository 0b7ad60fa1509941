import { DIALS } from "./backoff.js";

/**
 * What the page says and which buttons it offers, from the state of its parts. Pure. The server's
 * own words are never shown: codes become sentences here.
 */

/** @type {Words} */
const FAULTS = {
  resolve: "its address was not found",
  connect: "nothing answers at its address",
  banner: "what answers there is not a VNC server",
  security: "it wants a kind of sign-in that is not known here",
  authentication: "it refused the server’s password",
  ServerInit: "it did not tell its size",
  4502: "it refused or closed the connection",
  4504: "it does not answer",
};

/** @type {Words} */
const FINAL = {
  signed_out: "You are signed out.",
  4400: "The page and the server misunderstood each other. Reload the page.",
  4403: "You may not watch this desktop (any more).",
  4404: "The desktop cannot be reached: it does not exist, or its display is not enabled.",
  4410: "This desktop was opened in a newer window. This one has stopped.",
  4411: "The desktop is hidden from watchers for now. It comes back by itself.",
  4511: "The desktop cannot be reached: it refused the server’s password. Tell an administrator.",
};

/** @type {Words} */
const BEFORE_RETRY = {
  4413: "The connection is too slow. ",
  4429: "Too many windows are open. ",
};

const OVER = ["disconnected", "ended", "unavailable"];
/** @type {DisplayView["why"][]} */
const NO_RECONNECT = [4403, 4411, "stopped"];

const OFFLINE = {
  network: "No connection to the server.",
  busy: "The server is busy.",
  program: "The display program could not be loaded.",
};

const STEPS = {
  session: "the server’s permission",
  socket: "the server to open the connection",
  desktop: "the desktop to answer",
  picture: "the first picture",
};

/** `BY` stands for who did it. @type {Words} */
const LOSSES = {
  forced: "BY ended your control",
  preempted: "BY took over",
  taken: "BY took control after yours had run out",
  moved: "Your control moved to another window of yours",
  released: "Your control was released",
  access_ended: "Your permission to control this desktop ended",
  handed_over: "Your control was handed over to BY",
  idle: "Your control ended for lack of input",
  max_hold: "Your control had lasted as long as allowed",
  expired: "Your control ran out",
};

/** @type {Words} */
const ACTS = {
  take: "take control",
  force: "end control",
  open: "open the desktop again",
  keep: "keep control",
  ask: "ask for control",
  withdraw: "withdraw the request",
  answer: "answer the request",
};

/** By the server's code, or else by status. @type {Words} */
const REFUSALS = {
  held: "somebody else has it now",
  held_elsewhere: "you have it in another window",
  closed: "the desktop is closed to it",
  not_needed: "it is free, or yours already",
  not_asked: "it is not open any more",
  0: "the server did not answer",
  403: "you have no permission",
  404: "you have no permission",
  429: "the server is busy. Try again",
};

const WARNING_MS = 30_500; // the server tells of it 30 s before

/** @type {Words} */
const ENDS = { idle: "for lack of input", max_hold: "because it has lasted as long as this workspace allows" };

/** @param {string | null | undefined} iso @returns {string} a time of day, as people here write it */
export function clock(iso) {
  if (!iso) return "";
  return new Date(iso).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** @param {number} ms @returns {string} */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

/** The one line that is announced. @param {PageView} view @returns {string} */
export function statusOf(view) {
  const { display, name, slow } = view;
  if (view.signedOut) return FINAL.signed_out;
  switch (display.state) {
    case "connecting":
      return `Connecting to ${name}…${slow ? ` Waiting for ${STEPS[display.step]}.` : ""}`;
    case "reconnecting":
      return reconnecting(view);
    case "disconnected":
      return unreachable(display) || "The connection is lost and could not be restored.";
    case "live":
      return live(view);
    default:
      return FINAL[display.why] ?? "The connection has ended.";
  }
}

/** @param {PageView} view */
function reconnecting(view) {
  const { offline, attempt, why } = view.display;
  if (offline) return `${OFFLINE[offline]} ${reserved(view)}`;
  const cause = unreachable(view.display);
  return `${cause ? `${cause} ` : (BEFORE_RETRY[why] ?? "")}Reconnecting… (attempt ${attempt} of ${DIALS})`;
}

/** @param {PageView} view */
function reserved({ lease, serverNow }) {
  const end = lease.epoch === null ? null : lease.control?.expires_at;
  if (!end) return "Trying again.";
  if (Date.parse(end) > serverNow) return `Control stays yours until ${clock(end)}.`;
  return `Control was yours until ${clock(end)}. Trying again.`;
}

/** @param {DisplayView} display */
function unreachable({ why, fault }) {
  if (why !== 4502 && why !== 4504) return "";
  return `The desktop cannot be reached: ${FAULTS[fault] ?? FAULTS[why]}.`;
}

/** @param {PageView} view */
function live(view) {
  const { lease, notice } = view;
  if (notice) return sentenceOf(notice);
  if (lease.wants !== "none") return holding(view);
  if (lease.request) return `Asked ${lease.control?.controlled_by} for control. Waiting for an answer…`;
  return watching(lease.control);
}

/** @param {PageView} view */
function holding({ lease, display }) {
  if (display.mode === "control") {
    if (!lease.failing) return "You have control.";
    return `Could not renew control. Trying again; it ends at ${clock(lease.control?.expires_at)}.`;
  }
  if (display.pause === "waiting") return "Taking control… Waiting for the previous controller to let go.";
  if (lease.wants === "taking") return "Taking control…";
  if (display.pause === "fenced") return "Input is paused: the server cannot check who has control. Control stays yours.";
  const hasLapsed = lease.lapsed || display.pause === "expired";
  return hasLapsed ? "Your control ran out before it could be renewed. Trying again." : "Taking control…";
}

/** @param {Control | null} control */
function watching(control) {
  if (!control) return "You are watching.";
  if (control.closed) return `${closed(control.closed)} You are watching.`;
  if (control.controller === "none") return "You are watching. Nobody has control.";
  if (control.yours) return "You are watching. Your control is in another window.";
  if (control.controller === "user") return `You are watching. ${control.controlled_by} has control.`;
  return control.can.control ? "An agent has control. You can take over." : "You are watching. An agent has control.";
}

/** @param {NonNullable<Control["closed"]>} closing */
function closed({ by, note }) {
  return `${by ?? "Somebody"} has closed this desktop to control${quoted(note)}`;
}

/** The end of a sentence. @param {string | null | undefined} words */
function quoted(words) {
  return words ? `: “${words}”.` : ".";
}

/** Whether what is told has been overtaken by who has control now. @param {Notice | null} notice @param {LeaseView} lease */
export function isOver(notice, { wants, request, control }) {
  const keeps = control?.controller === "user" && notice?.kind === "kept" && control.epoch === notice.epoch;
  return wants !== "none" || Boolean(request) || (notice?.kind === "kept" && !keeps);
}

/** @param {Notice} notice */
function sentenceOf(notice) {
  if (notice.kind === "refused") return refusal(notice);
  if (notice.kind === "kept") return `${notice.by} ${notice.reason === "unanswered" ? "did not answer" : "keeps control"}.`;
  const lost = (LOSSES[notice.reason] ?? "Your control ended").replace("BY", () => notice.by || "Somebody else");
  return `${lost}${quoted(notice.note)} You are watching.`;
}

/** @param {{what: string, status: number, code: string}} notice */
function refusal({ what, status, code }) {
  if (code === "asked_lately") return "You asked a moment ago. Wait half a minute before you ask again.";
  const why = REFUSALS[code] ?? REFUSALS[status < 500 ? status : 429];
  return `Could not ${ACTS[what]}${why ? `: ${why}` : ". Reload the page and try again"}.`;
}

/** Who asks this tab for control: first, who gets it by itself. @param {LeaseView} lease @returns {Asked | undefined} */
export function askerOf(lease) {
  const requests = othersRequests(lease);
  return requests.find((each) => each.granted_at) ?? requests[0];
}

/** @param {LeaseView} lease */
function othersRequests({ wants, control }) {
  return wants === "held" && control?.this_client ? control.requests.filter((each) => !each.yours) : [];
}

/** The limit at which this tab's control is about to end. @param {LeaseView} lease @returns {Control["ends"]} */
export function limitOf({ wants, control }) {
  const ends = wants === "held" && control?.this_client ? control.ends : null;
  return ends && Date.parse(ends.at) - Date.parse(control?.server_time ?? "") < WARNING_MS ? ends : null;
}

/** What needs an answer, or comes by itself. It changes by the second. @param {PageView} view @returns {string} */
export function asksOf({ display, lease, serverNow }) {
  if (display.state !== "live") return "";
  /** @param {string} iso */
  const left = (iso) => `in ${Math.max(0, Math.ceil((Date.parse(iso) - serverNow) / 1000))} s`;
  const [asker, limit] = [askerOf(lease), limitOf(lease)];
  if (lease.request?.granted_at) return `${lease.control?.controlled_by} is away. Control comes to you ${left(lease.request.granted_at)}.`;
  return [
    asker?.granted_at && `You have given no input: control goes to ${asker.by} ${left(asker.granted_at)}. Press any key or move the mouse to keep it.`,
    asker && !asker.granted_at && `${asker.by} asks for control${quoted(asker.message)}`,
    asker && others(othersRequests(lease).length - 1),
    limit && `Control ends ${left(limit.at)} ${ENDS[limit.reason]}.`,
  ]
    .filter(Boolean)
    .join(" ");
}

/** @param {number} count */
function others(count) {
  return count && `${count} more ${count === 1 ? "asks" : "ask"} for it.`;
}

/** Beside the status, not announced: it changes with time. @param {PageView} view @returns {string} */
export function factsOf({ display, lease, notice, stale, serverNow }) {
  if (display.state !== "live") return "";
  if (stale) return "Who has control could not be checked just now.";
  if (notice?.kind === "lost" && notice.at) return `at ${clock(notice.at)}`;
  const control = lease.control;
  return control && control.controller !== "none" && lease.wants === "none" ? ofHolder(control, serverNow) : "";
}

/** The way to the server and back; not announced. @param {PageView} view @returns {string} */
export function delayOf({ display: { state, delay } }) {
  if (state !== "live" || delay === null) return "";
  return delay < 1000 ? `Delay ${Math.max(1, Math.round(delay))} ms` : `Delay ${(delay / 1000).toFixed(1)} s`;
}

/** @param {Control} control @param {number} serverNow */
function ofHolder({ controller, controlled_by, acquired_at, last_input_at, holder_connected }, serverNow) {
  return [
    controller === "agent" && controlled_by,
    acquired_at && `since ${clock(acquired_at)}`,
    last_input_at ? `no input for ${duration(serverNow - Date.parse(last_input_at))}` : "no input yet",
    holder_connected === false && "their window is closed",
  ]
    .filter(Boolean)
    .join(" · ");
}

/** Which buttons are there, and why some cannot be pressed. @param {PageView} view @returns {Offers} */
export function offersOf(view) {
  const { display, lease, notice, signedOut } = view;
  return {
    release: offer(lease.wants !== "none" && !signedOut),
    reconnect: offer(!signedOut && OVER.includes(display.state) && !NO_RECONNECT.includes(display.why)),
    retry: offer(display.waiting && !signedOut),
    signin: offer(signedOut),
    dismiss: offer(notice !== null && display.state === "live" && !signedOut),
    fullscreen: offer(true),
    ...permitted(view),
  };
}

const PERMITTED = ["take", "move", "ask", "withdraw", "hand", "keep", "force", "open", "clipboard", "keyboard", "cad"];

/** What `can` decides. @param {PageView} view @returns {Offers} */
function permitted({ display, lease, signedOut }) {
  const control = lease.control;
  const isOver = signedOut || display.state === "ended" || display.why === 4404;
  if (!control || isOver) return Object.fromEntries(PERMITTED.map((name) => [name, null]));
  const noKeys = whyNoKeys(display, lease);
  return {
    ...waysToControl(display, lease, control),
    ...urgent(lease),
    force: offer(control.can.force && control.controller !== "none" && !control.this_client),
    open: offer(control.can.force && control.closed !== null),
    clipboard: offer(control.can.control),
    keyboard: offer(control.can.control, noKeys),
    cad: offer(control.can.control, noKeys),
  };
}

/** @param {DisplayView} display @param {LeaseView} lease @param {Control} control @returns {Offers} */
function waysToControl(display, { wants, request }, control) {
  const mayTake = control.can.control && wants === "none";
  const isElsewhere = control.yours && !control.this_client;
  return {
    take: offer(mayTake && !isElsewhere, whyNotTake(display, control)),
    move: offer(mayTake && isElsewhere, whyNoPicture(display)),
    ask: offer(mayTake && isAnothers(control) && !request, whyNoPicture(display)),
  };
}

/** What waits for an answer. @param {LeaseView} lease @returns {Offers} */
function urgent(lease) {
  const isAsked = askerOf(lease) !== undefined;
  return {
    withdraw: offer(lease.request !== undefined),
    hand: offer(isAsked),
    keep: offer(isAsked || limitOf(lease) !== null),
  };
}

/** @param {boolean} isThere @returns {Offer | null} */
function offer(isThere, why = "") {
  return isThere ? { why } : null;
}

/** @param {DisplayView} display @param {Control} control */
function whyNotTake(display, control) {
  if (control.closed) return closed(control.closed);
  if (isAnothers(control)) return `${control.controlled_by} has control. Ask for it, or wait until it is free.`;
  return whyNoPicture(display);
}

/** Whether it is another person's. @param {Control} control */
function isAnothers({ controller, yours }) {
  return controller === "user" && !yours;
}

/** @param {DisplayView} display */
function whyNoPicture({ state, why }) {
  return state === "live" || why === 4411 ? "" : "Wait for the picture.";
}

/** @param {DisplayView} display @param {LeaseView} lease */
function whyNoKeys({ state, mode }, { wants }) {
  if (wants === "none") return "Take control first.";
  return state === "live" && mode === "control" ? "" : "Wait for the connection.";
}

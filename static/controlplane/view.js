/**
 * What the page says and which buttons it offers, from the state of its parts. Pure: words and
 * decisions only. Nothing the server words itself is shown; codes become sentences here.
 */

import { DIALS } from "./backoff.js";

/** @typedef {{why: string}} Offer a button that is there; `why` it is disabled, or "" */
/** @typedef {Record<string, Offer | null>} Offers */

const FAULTS = /** @type {Record<string, string>} */ ({
  resolve: "its address was not found",
  connect: "nothing answers at its address",
  banner: "what answers there is not a VNC server",
  security: "it asks for a kind of sign-in that the server does not know",
  authentication: "it refused the server’s password",
  ServerInit: "it did not tell its size",
  4502: "it refused or closed the connection",
  4504: "it does not answer",
});

const FINAL = /** @type {Record<string, string>} */ ({
  stopped: "This page has closed its connection.",
  forbidden: "You may not watch this desktop (any more).",
  refused: "The server did not accept this page’s request. Reload the page.",
  missing: "The desktop cannot be reached: it does not exist, or its display is not enabled.",
  4400: "The connection was stopped: this page and the server did not understand each other. Reload the page.",
  4403: "You may not watch this desktop (any more).",
  4404: "The desktop cannot be reached: it does not exist, or its display is not enabled.",
  4410: "This desktop was opened again in a newer window. This one has stopped.",
  4411: "The desktop is hidden from watchers for now. It comes back by itself.",
  4511: "The desktop cannot be reached: it refused the server’s password. Ask an administrator to correct it.",
});

const PREFIX = /** @type {Record<string, string>} */ ({
  4413: "This connection is too slow for the picture. ",
  4429: "Too many windows show desktops at once. ",
});

const LOSSES = /** @type {Record<string, (by: string) => string>} */ ({
  forced: (by) => `${by} ended your control`,
  preempted: (by) => `${by} took over`,
  taken: (by) => `${by} took control while yours had run out`,
  moved: () => "Your control moved to another window of yours",
  released: () => "Your control was released",
  access_ended: () => "Your permission to control this desktop ended",
  handed_over: (by) => `Your control was handed over to ${by}`,
  idle: () => "Your control ended because there was no input",
  max_hold: () => "Your control ended: it had lasted as long as allowed",
  expired: () => "Your control ran out",
});

/** @param {string | null | undefined} iso @returns {string} a time of day, as people here write it */
export function clock(iso) {
  if (!iso) return "";
  return new Date(iso).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
}

/** @param {number} ms @returns {string} */
export function duration(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** The one line that is announced. @param {PageView} view @returns {string} */
export function statusOf(view) {
  const { display } = view;
  if (view.signedOut) return "You are signed out.";
  if (display.state === "connecting") return connecting(view);
  if (display.state === "reconnecting") return reconnecting(view);
  if (display.state === "disconnected") return gaveUp(display);
  if (display.state === "live") return live(view);
  return FINAL[display.why] ?? "The connection has ended.";
}

/** @param {PageView} view */
function connecting({ name, slow, display }) {
  if (!slow) return `Connecting to ${name}…`;
  const steps = {
    session: "Waiting for the server’s permission.",
    socket: "Waiting for the server to open the connection.",
    desktop: "Waiting for the desktop to answer.",
    picture: "Waiting for the first picture.",
  };
  return `Connecting to ${name}… ${steps[display.step]}`;
}

/** @param {PageView} view */
function reconnecting(view) {
  const { offline, attempt, why } = view.display;
  if (offline === "program") return "The display program could not be loaded. Trying again.";
  if (offline) {
    const cause = offline === "network" ? "No connection to the server." : "The server is busy.";
    return `${cause} ${reserved(view)}`;
  }
  const prefix = isUnreachable(why) ? `${unreachable(view.display)} ` : (PREFIX[why] ?? "");
  return `${prefix}Reconnecting… (attempt ${attempt} of ${DIALS})`;
}

/** @param {PageView} view */
function reserved({ lease, serverNow }) {
  const end = lease.epoch === null ? null : lease.control?.expires_at;
  if (!end) return "Trying again.";
  if (Date.parse(end) > serverNow) return `Control stays yours until ${clock(end)}.`;
  return `Control was yours until ${clock(end)}. Trying again.`;
}

/** @param {number | string} why */
function isUnreachable(why) {
  return why === 4502 || why === 4504;
}

/** @param {DisplayView} display */
function unreachable({ why, fault }) {
  return `The desktop cannot be reached: ${FAULTS[fault] ?? FAULTS[why]}.`;
}

/** @param {DisplayView} display */
function gaveUp(display) {
  return isUnreachable(display.why) ? unreachable(display) : "The connection is lost and could not be restored.";
}

/** @param {PageView} view */
function live(view) {
  const { lease, notice } = view;
  if (lease.wants !== "none") return holding(view);
  if (notice) return sentenceOf(notice);
  return watching(lease.control);
}

/** @param {PageView} view */
function holding({ lease, display }) {
  if (display.mode === "control") {
    if (!lease.failing) return "You have control.";
    return `Could not renew control. Trying again; it ends at ${clock(lease.control?.expires_at)}.`;
  }
  if (lease.wants === "taking") return "Taking control…";
  if (display.pause === "fenced") return "Input is paused: the server cannot check who has control. Control stays yours.";
  if (lease.lapsed || display.pause === "expired") return "Your control ran out before it could be renewed. Trying again.";
  return "Taking control…";
}

/** @param {Control | null} control */
function watching(control) {
  if (!control) return "You are watching.";
  if (control.controller === "none") return "You are watching. Nobody has control.";
  if (control.controller === "agent" && control.can.control) return "An agent has control. You can take over.";
  if (control.controller === "agent") return "You are watching. An agent has control.";
  if (control.yours) return "You are watching. Your control is in another window.";
  return `You are watching. ${control.controlled_by} has control.`;
}

/** @param {Notice} notice @returns {string} */
export function sentenceOf(notice) {
  if (notice.kind === "refused") return refusal(notice);
  const lost = LOSSES[notice.reason] ?? (() => "Your control ended");
  const note = notice.note ? `: “${notice.note}”` : "";
  return `${lost(notice.by || "Somebody else")}${note}. You are watching.`;
}

/** @param {{what: "take" | "force", status: number, code: string}} notice */
function refusal({ what, status, code }) {
  const failed = what === "take" ? "Could not take control" : "Could not end control";
  if (status === 0) return `${failed}: the server did not answer.`;
  if (status === 403 || status === 404) return `${failed}: you have no permission.`;
  if (status === 409 && code === "held") return `${failed}: somebody else has it now.`;
  if (status === 409 && code === "held_elsewhere") return `${failed}: you have it in another window.`;
  if (status === 429 || status >= 500) return `${failed}: the server is busy. Try again.`;
  return `${failed}. Reload the page and try again.`;
}

/** Beside the status, not announced: it changes with time. @param {PageView} view @returns {string} */
export function factsOf(view) {
  const { display, lease, notice, serverNow } = view;
  if (!display.live) return "";
  if (view.stale) return "Who has control could not be checked just now.";
  if (notice?.kind === "lost" && notice.at) return `at ${clock(notice.at)}`;
  const control = lease.control;
  if (!control || control.controller === "none" || lease.wants !== "none") return "";
  const facts = [];
  if (control.controller === "agent" && control.controlled_by) facts.push(control.controlled_by);
  if (control.acquired_at) facts.push(`since ${clock(control.acquired_at)}`);
  const input = control.last_input_at;
  facts.push(input ? `no input for ${duration(serverNow - Date.parse(input))}` : "no input yet");
  if (control.holder_connected === false) facts.push("their window is closed");
  return facts.join(" · ");
}

/** Which buttons are there, and why some cannot be pressed. @param {PageView} view @returns {Offers} */
export function offersOf(view) {
  const { display, lease, notice, signedOut } = view;
  const isOver = signedOut || display.state === "ended" || ["missing", 4404].includes(display.why);
  const can = isOver ? null : (lease.control?.can ?? null);
  return {
    ...takingOffers(view, can),
    release: lease.wants === "none" || signedOut ? null : { why: "" },
    ...deskOffers(view, can),
    reconnect: canReconnect(view) ? { why: "" } : null,
    retry: display.waiting && !signedOut ? { why: "" } : null,
    signin: signedOut ? { why: "" } : null,
    dismiss: notice && display.live && lease.wants === "none" && !signedOut ? { why: "" } : null,
  };
}

/** @param {PageView} view @param {Control["can"] | null} can @returns {Offers} */
function takingOffers({ display, lease }, can) {
  const control = lease.control;
  const isFree = lease.wants === "none" && can?.control;
  const isElsewhere = Boolean(control?.yours && !control.this_client);
  const isOthers = control?.controller === "user" && !control.yours;
  const noPicture = display.live || display.why === 4411 ? "" : "Wait for the picture.";
  const others = isOthers ? `${control.controlled_by} has control. Wait until it is free.` : "";
  return {
    take: isFree && !isElsewhere ? { why: others || noPicture } : null,
    move: isFree && isElsewhere ? { why: noPicture } : null,
    force: can?.force && control && control.controller !== "none" && !control.this_client ? { why: "" } : null,
  };
}

/** @param {PageView} view @param {Control["can"] | null} can @returns {Offers} */
function deskOffers({ display, lease }, can) {
  const isDriving = display.live && display.mode === "control" && lease.wants !== "none";
  const why = isDriving ? "" : lease.wants === "held" ? "Wait for the connection." : "Take control first.";
  return {
    clipboard: can?.control ? { why: "" } : null,
    keyboard: can?.control ? { why } : null,
    cad: can?.control ? { why } : null,
    fullscreen: { why: "" },
  };
}

/** @param {PageView} view */
function canReconnect({ display, signedOut }) {
  if (signedOut || ["forbidden", 4403, 4411, "stopped"].includes(display.why)) return false;
  return ["disconnected", "ended", "unavailable"].includes(display.state);
}

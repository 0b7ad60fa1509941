import { Api } from "./api.js";
import { Clipboard } from "./clipboard.js";
import { Display } from "./display.js";
import { Identity } from "./identity.js";
import { Lease } from "./lease.js";
import { Ui } from "./ui.js";
import { clock, duration, factsOf, offersOf, statusOf } from "./view.js";

/**
 * Reads the page's data attributes, builds the parts and connects their events. The parts do not
 * know each other: lease (may I?), display (the picture), clipboard, ui (the elements).
 */

const TICK_MS = 1_000;
const REFRESH_MS = 15_000;
const SLOW_MS = 3_000;
const CLIPBOARD_CHARACTERS = 262_144;

const timers = {
  set: (/** @type {() => void} */ callback, /** @type {number} */ ms) => setTimeout(callback, ms),
  clear: (/** @type {any} */ id) => clearTimeout(id),
};
const now = () => Date.now();
const random = () => Math.random();
const visible = () => document.visibilityState === "visible";

const root = /** @type {HTMLElement} */ (document.getElementById("display"));
const data = /** @type {Record<string, string>} */ ({ ...root.dataset });

const identity = new Identity({
  workspace: data.workspace,
  storage: storage(),
  locks: navigator.locks,
  crypto,
});
await identity.claim();

const api = new Api({
  fetch: (...request) => fetch(...request),
  base: data.api,
  clientId: identity.clientId,
  csrf: () => /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "",
  timers,
});
const ui = new Ui(root);
const lease = new Lease({ api, epoch: identity.epoch, remember: (epoch) => identity.remember(epoch), now, timers, random });
const display = new Display({
  session: () => lease.session(),
  load: async () => (await import(new URL(data.novnc, location.href).href)).default,
  open: (url, protocols) => new WebSocket(url, protocols),
  screen: ui.screen,
  now,
  timers,
  random,
  visible,
});
const clipboard = new Clipboard({
  limit: CLIPBOARD_CHARACTERS,
  isDriving: () => display.driving,
  send: (text) => display.paste(text),
  write: writeText,
  timers,
});

/** @type {Notice | null} */
let notice = null;
let signedOut = false;
let stale = false;
let frozenAt = 0;
let connectingSince = now();
let version = -1;
let focusWanted = false;
let wasDriving = false;
let scheduled = false;

/** What a person or the server does → which part is told. @type {[EventTarget, string, (detail: any) => void][]} */
const wires = [
  [ui, "take", () => take(false)],
  [ui, "move", () => take(true)],
  [ui, "release", () => lease.release()],
  [ui, "force", ({ note }) => lease.force(note)],
  [ui, "reconnect", () => display.restart()],
  [ui, "retry", () => display.wake()],
  [ui, "signin", () => location.assign(data.loginUrl)],
  [ui, "dismiss", () => notify(null)],
  [ui, "cad", () => (display.ctrlAltDel(), display.focus())],
  [ui, "keys", ({ keysyms }) => display.type(keysyms)],
  [ui, "paste", paste],
  [ui, "edit", ({ text }) => clipboard.edit(text)],
  [ui, "copy", ({ text }) => clipboard.copy(text)],
  [ui, "enter", () => display.focus()],
  [lease, "change", leaseChanged],
  [lease, "lost", (loss) => notify({ kind: "lost", ...loss })],
  [lease, "refused", (refusal) => notify({ kind: "refused", ...refusal })],
  [lease, "signedout", () => ((signedOut = true), draw())],
  [display, "change", displayChanged],
  [display, "control", (message) => lease.hear(message)],
  [display, "frozen", ({ at }) => ((frozenAt = at), ui.freeze())],
  [display, "live", () => (ui.thaw(), regainFocus())],
  [display, "clipboard", ({ text }) => clipboard.fromDesktop(text)],
  [display, "toolarge", () => clipboard.refused()],
  [clipboard, "text", ({ text }) => ui.showText(text)],
  [clipboard, "say", ({ sentence }) => ui.say(sentence)],
];
for (const [target, type, act] of wires) {
  target.addEventListener(type, (event) => act(/** @type {CustomEvent} */ (event).detail));
}

/** @param {boolean} move */
function take(move) {
  notice = null;
  focusWanted = true;
  lease.take({ move });
}

function leaseChanged() {
  if (lease.wants !== "none") notice = null;
  display.allow(lease.wants !== "none");
  const isNews = lease.control !== null && lease.control.version !== version;
  version = lease.control?.version ?? version;
  if (isNews) display.controlChanged();
  draw();
}

function displayChanged() {
  const { why } = display.view;
  if (why === "signed_out") signedOut = true;
  draw();
}

/** @param {Notice | null} news */
function notify(news) {
  notice = news;
  draw();
}

/** @param {{text: string | null, keysym: number, isMeta: boolean}} pasted */
function paste({ text, keysym, isMeta }) {
  const isRefused = Boolean(text) && !clipboard.toDesktop(/** @type {string} */ (text));
  if (!isRefused) display.pressPaste(keysym, isMeta);
}

/** @param {string} text */
async function writeText(text) {
  if (!navigator.clipboard || !document.hasFocus()) return false;
  return navigator.clipboard.writeText(text).then(() => true, () => false);
}

/** After "Take control", and where a reconnect has taken the canvas away under the focus. */
function regainFocus() {
  if (!display.driving || !(focusWanted || ui.isIdle)) return;
  focusWanted = false;
  display.focus();
}

/** Draw once, however many parts have changed in this step. */
function draw() {
  if (scheduled) return;
  scheduled = true;
  queueMicrotask(() => {
    scheduled = false;
    render();
  });
}

function render() {
  const shown = display.view;
  if (shown.state !== "connecting") connectingSince = now();
  const view = {
    name: data.name,
    display: shown,
    lease,
    notice,
    slow: now() - connectingSince > SLOW_MS,
    signedOut,
    stale,
    serverNow: lease.serverNow,
  };
  const driving = display.driving;
  const isOurs = shown.live ? driving : lease.epoch !== null;
  const age = ui.isFrozen ? `Picture from ${clock(new Date(frozenAt).toISOString())}, ${duration(now() - frozenAt)} old` : "";
  ui.render({
    display: shown,
    driving,
    mode: isOurs ? "control" : "observe",
    status: statusOf(view),
    facts: factsOf(view),
    offers: offersOf(view),
    holder: lease.control?.controlled_by ?? "the holder",
    age,
  });
  if (driving && !wasDriving) regainFocus();
  wasDriving = driving;
}

/** A close that says "not permitted" does not say why: the API does. */
async function refresh() {
  if (!visible() || signedOut) return;
  const { ok, status } = await lease.refresh();
  stale = !ok;
  if (status === 401) signedOut = true;
  draw();
}

function woken() {
  if (!visible()) return;
  display.wake();
  lease.wake();
  refresh();
}

function storage() {
  try {
    return sessionStorage;
  } catch {
    return undefined; // blocked by the browser's settings
  }
}

function start() {
  ui.start();
  lease.start();
  display.start();
  display.allow(lease.wants !== "none");
  refresh();
  draw();
}

function stop() {
  display.stop();
  lease.stop();
  ui.stop();
}

start();
setInterval(draw, TICK_MS);
setInterval(refresh, REFRESH_MS);
addEventListener("online", woken);
document.addEventListener("visibilitychange", woken);
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => event.persisted && start()); // back from the browser's cache

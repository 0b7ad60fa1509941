import { Api } from "./api.js";
import { Clipboard } from "./clipboard.js";
import { Display } from "./display.js";
import { Identity } from "./identity.js";
import { Lease } from "./lease.js";
import { Ui } from "./ui.js";
import { askerOf, asksOf, clock, delayOf, duration, factsOf, isOver, limitOf, offersOf, statusOf } from "./view.js";

/**
 * Reads the page's data attributes, builds the parts and connects their events. The parts do not
 * know each other: lease (may I?), display (the picture), clipboard, ui (the elements).
 */

const TICK_MS = 1_000;
const REFRESH_MS = 15_000;
const SLOW_MS = 3_000;
const SETTLE_MS = 700;
const CLIPBOARD_CHARACTERS = 262_144;

/** @type {Timers} */
const timers = { set: (callback, ms) => setTimeout(callback, ms), clear: (id) => clearTimeout(id) };
const now = Date.now;
const ambience = { timers, now, random: Math.random };
const visible = () => document.visibilityState === "visible";

const data = /** @type {Record<string, string>} */ ({ ...document.getElementById("display")?.dataset });
const identity = new Identity({ workspace: data.workspace, storage: () => sessionStorage, locks: navigator.locks, crypto });
await identity.claim();

const ui = new Ui();
const api = new Api({
  fetch: (...request) => fetch(...request),
  base: data.api,
  clientId: identity.clientId,
  csrf: () => /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "",
  timers,
});
const lease = new Lease({ ...ambience, api, epoch: identity.epoch, remember: (epoch) => identity.remember(epoch) });
const display = new Display({
  ...ambience,
  session: () => lease.session(),
  load: async () => (await import(new URL(data.novnc, location.href).href)).default,
  open: (url, protocols) => new WebSocket(url, protocols),
  screen: ui.screen,
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
let wantsFocus = false;
let wasDriving = false;
let isDrawing = false;
let askerShown = 0;
let askerChangedAt = 0;

/** What a person or the server does → which part is told. @type {[EventTarget, string, (detail: any) => void][]} */
const wires = [
  [ui, "take", () => lease.take()],
  [ui, "move", () => lease.take({ move: true })],
  [ui, "release", () => lease.release()],
  [ui, "ask", ({ message }) => lease.ask(message.trim())],
  [ui, "withdraw", () => lease.withdraw()],
  [ui, "hand", () => answer(true)],
  [ui, "keep", keep],
  [ui, "force", ({ note, close }) => lease.force(note.trim(), Boolean(close))],
  [ui, "open", () => lease.open()],
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
  [lease, "kept", (kept) => notify({ kind: "kept", ...kept })],
  [lease, "refused", (refusal) => notify({ kind: "refused", ...refusal })],
  [lease, "signedout", () => ((signedOut = true), draw())],
  [display, "change", draw],
  [display, "control", (message) => lease.hear(message)],
  [display, "frozen", ({ at }) => ((frozenAt = at), ui.freeze(), refresh())],
  [display, "live", () => (ui.thaw(), regainFocus())],
  [display, "clipboard", ({ text }) => clipboard.fromDesktop(text)],
  [display, "toolarge", () => clipboard.refused()],
  [clipboard, "text", ({ text }) => ui.showText(text)],
  [clipboard, "say", ({ sentence }) => ui.say(sentence)],
];
for (const [target, type, act] of wires) {
  target.addEventListener(type, (event) => act(/** @type {CustomEvent} */ (event).detail));
}

function leaseChanged() {
  if (isOver(notice, lease)) notice = null;
  if (lease.wants === "taking") wantsFocus = true;
  display.allow(lease.wants !== "none");
  const news = lease.control?.version ?? version;
  if (news !== version) display.controlChanged();
  version = news;
  draw();
}

/** @param {number} id 0 where nobody asks */
function noteAsker(id) {
  if (askerShown && id && id !== askerShown) askerChangedAt = now();
  askerShown = id;
}

/** @param {boolean} accept */
function answer(accept) {
  const asker = askerOf(lease);
  if (accept && now() - askerChangedAt < SETTLE_MS) return; // the click was meant for the one before
  if (asker) lease.answer(asker.id, accept);
  askerShown = 0; // whoever comes next comes as expected
}

/** Against whoever asks for it, and against its end by a limit. */
function keep() {
  answer(false);
  if (limitOf(lease)) lease.prolong();
  display.focus();
}

/** @param {Notice | null} news */
function notify(news) {
  notice = news;
  draw();
}

/** @param {{text: string | null, keysym: number, isMeta: boolean}} pasted */
function paste({ text, keysym, isMeta }) {
  if (!text || clipboard.toDesktop(text)) display.pressPaste(keysym, isMeta);
}

/** @param {string} text */
async function writeText(text) {
  if (!navigator.clipboard || !document.hasFocus()) return false;
  return navigator.clipboard.writeText(text).then(() => true, () => false);
}

/** After "Take control", and where a reconnect has taken the canvas away under the focus. */
function regainFocus() {
  if (!display.driving || !(wantsFocus || ui.isIdle)) return;
  wantsFocus = false;
  display.focus();
}

/** Draw once, however many parts have changed in this step. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  queueMicrotask(() => ((isDrawing = false), render()));
}

function render() {
  const shown = display.view;
  const { driving } = display;
  if (shown.state !== "connecting") connectingSince = now();
  if (shown.why === "signed_out") signedOut = true;
  const slow = now() - connectingSince > SLOW_MS;
  const view = { name: data.name, display: shown, lease, notice, slow, signedOut, stale, serverNow: lease.serverNow };
  const age = `Picture from ${clock(new Date(frozenAt).toISOString())}, ${duration(now() - frozenAt)} old`;
  const isOurs = shown.state === "live" ? driving : lease.epoch !== null;
  ui.render({
    display: shown,
    driving,
    mode: isOurs ? "control" : "observe",
    status: statusOf(view),
    facts: factsOf(view),
    delay: delayOf(view),
    offers: offersOf(view),
    asks: asksOf(view),
    holder: lease.control?.controlled_by ?? "the holder",
    age: ui.isFrozen ? age : "",
  });
  noteAsker(askerOf(lease)?.id ?? 0);
  if (driving && !wasDriving) regainFocus();
  wasDriving = driving;
}

/** Who has control? And are we still signed in? A stream that ends with "not permitted" does not say. */
async function refresh() {
  if (!visible() || signedOut) return;
  const { ok, status } = await lease.refresh();
  stale = !ok;
  signedOut ||= status === 401;
  draw();
}

function wake() {
  if (!visible()) return;
  display.wake();
  lease.wake();
  refresh();
}

function start() {
  ui.start();
  lease.start();
  display.start();
  leaseChanged();
  refresh();
}

function stop() {
  display.stop();
  lease.stop();
  ui.stop();
}

start();
setInterval(draw, TICK_MS);
setInterval(refresh, REFRESH_MS);
addEventListener("online", wake);
document.addEventListener("visibilitychange", wake);
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => event.persisted && start()); // back from the browser's cache

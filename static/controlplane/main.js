import { Api } from "./api.js";
import { Display } from "./display.js";
import { connect } from "./emitter.js";
import { Identity } from "./identity.js";
import { Lease } from "./lease.js";
import { keptLook } from "./look.js";
import { pass } from "./pass.js";
import { Ui } from "./ui.js";
import { handingOf, hidesOf, offersOf, statusOf } from "./view.js";

/**
 * Builds the parts and connects their events. The parts do not know each other: lease (may I?), display
 * (the picture), ui (the elements), tools (the rest).
 */

const TICK_MS = 1_000;
const REFRESH_MS = 15_000;
const HIDDEN_MS = 2_000;
const SLOW_MS = 3_000;
const SLEPT_MS = 10_000;
const BACK_MS = 30_000;

/** @type {Timers} */
const timers = { set: (callback, ms) => setTimeout(callback, ms), clear: (id) => clearTimeout(id) };
const now = Date.now;
const ambience = { timers, now, random: Math.random };
const visible = () => document.visibilityState === "visible";

const ui = new Ui();
const data = ui.told;
const identity = new Identity({ workspace: data.workspace, storage: pass.storage, locks: pass.locks, crypto });
await identity.claim();

const api = new Api({
  fetch: pass.fetch,
  base: data.api,
  clientId: identity.clientId,
  csrf: pass.csrf,
  timers,
});
export const lease = new Lease({ ...ambience, api, epoch: identity.epoch, remember: (epoch) => identity.remember(epoch) });
const display = new Display({
  ...ambience,
  session: () => lease.session(),
  load: async () => (await import(new URL(data.novnc, location.href).href)).default,
  open: (url, protocols) => new WebSocket(url, protocols),
  screen: ui.screen,
  visible,
});

/** @type {Notice | null} */
let notice = null;
let noticeAt = 0;
let relitAt = 0;
const absence = { hiddenAt: 0, backAt: 0 };
let signedOut = false;
let stale = false;
let frozenAt = 0;
let tickedAt = now();
let connectingSince = now();
let wantsFocus = false;
let wasDriving = false;
let isDrawing = false;
let copied = "";
/** @type {typeof import("./news.js") | null} */
let news = null;
/** @type {import("./asker.js").Asker | null} */
let asker = null;
/** @type {import("./tools.js").Tools | null} */
let tools = null;
/** @type {Promise<unknown> | null} */
let loading = null;

// What a person or the server does → which part is told.
connect([
  [ui, "take", () => lease.take()],
  [ui, "move", () => lease.take({ move: true })],
  [ui, "release", () => lease.release()],
  [ui, "withdraw", () => lease.withdraw()],
  [ui, "hand", () => asker?.answer(true)],
  [ui, "keep", () => (asker?.keep(), display.focus())],
  [ui, "open", () => lease.open()],
  [ui, "hide", () => lease.hide(!lease.control?.hidden)],
  [ui, "reconnect", () => display.restart()],
  [ui, "retry", () => display.wake()],
  [ui, "signin", signIn],
  [ui, "dismiss", () => notify(null)],
  ...["clipboard", "keyboard", "combos", "cad", "view", "fullscreen", "ask", "force", "handback"].map(toolOf),
  [ui, "enter", () => display.focus()],
  [lease, "change", leaseChanged],
  [lease, "lost", (loss) => notify({ kind: "lost", ...loss })],
  [lease, "kept", (kept) => notify({ kind: "kept", ...kept })],
  [lease, "refused", (refusal) => notify({ kind: "refused", ...refusal })],
  [lease, "signedout", () => ((signedOut = true), draw())],
  [display, "change", draw],
  [display, "control", (message) => ((stale = false), lease.hear(message))],
  [display, "frozen", ({ at }) => ((frozenAt = at), ui.freeze(), refresh())],
  [display, "live", () => (ui.thaw(), regainFocus(), loadNews(), (relitAt = frozenAt && now()))],
  [display, "clipboard", ({ text }) => (copied = text)],
]);

function leaseChanged() {
  if (news?.isOver(notice, lease)) notice = null;
  if (lease.wants === "taking") wantsFocus = true;
  if (lease.wants !== "none") loadTools();
  display.allow(lease.wants !== "none");
  if (!lease.control?.hidden) display.shown();
  draw();
}

/** @param {Notice | null} change */
function notify(change) {
  notice = change;
  noticeAt = now();
  loadNews();
  draw();
}

/** Its words, and answers to what they tell; without them, the page says how things are now. */
async function loadNews() {
  if (news) return;
  const parts = await Promise.all([import("./news.js"), import("./asker.js")]).catch(() => null);
  if (parts && !news) [news, asker] = [parts[0], new parts[1].Asker(lease, now)];
  draw();
}

/** @param {string} act @returns {[EventTarget, string, () => void]} */
function toolOf(act) {
  const refusal = /** @type {const} */ ({ kind: "refused", what: act, status: 0, code: "" });
  return [ui, act, async () => ((await loadTools()) ? tools?.use(act) : notify(refusal))];
}

/** Once, when they are wanted: nobody needs them to watch. */
function loadTools() {
  loading ??= import("./tools.js").then(
    (module) => (tools = new module.Tools({ name: data.name, clipboardLimit: Number(data.clipboard), display, lease, timers, copied })),
    () => (loading = null), // with the network; asked for again at the next click
  );
  return loading;
}

/** After "Take control", and where a reconnect has taken the canvas away under the focus. */
function regainFocus() {
  if (!display.driving || !(wantsFocus || ui.isIdle)) return;
  wantsFocus = false;
  display.focus();
}

/** Once, however many parts have changed in this step. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  queueMicrotask(() => ((isDrawing = false), render()));
}

/** A notice stays; that it was reconnected is told for a while. */
function away() {
  const at = notice ? noticeAt : now() - absence.backAt < BACK_MS ? relitAt : 0;
  return news?.awayAt(at, absence) ?? 0;
}

const SILENCE = { told: "", cause: "", asks: "", aloud: "", facts: "", delay: "", age: "" };

/** @returns {PageView} */
function viewNow() {
  const shown = display.view;
  if (shown.why === "signed_out") signedOut = true;
  if (shown.why || signedOut) loadNews();
  return {
    ...SILENCE,
    name: data.name,
    display: shown,
    lease,
    notice,
    slow: isSlow(shown),
    signedOut,
    guest: !data.login,
    stale,
    away: away(),
    frozenAt: ui.isFrozen ? frozenAt : 0,
    now: now(),
    serverNow: lease.serverNow,
  };
}

function render() {
  const { driving, view: shown } = display;
  const view = viewNow();
  const words = news?.wordsOf(view) ?? SILENCE;
  const isOurs = shown.state === "live" ? driving : lease.epoch !== null && (data.login || !signedOut);
  const offers = offersOf(view);
  tools?.render(offers); // first: it may put a focus away
  ui.render({
    ...words,
    told: words.aloud,
    display: shown,
    driving,
    mode: isOurs ? "control" : "observe",
    status: statusOf({ ...view, ...words }),
    offers,
    hides: hidesOf(lease),
    controller: lease.control?.controller ?? "none",
    handing: handingOf(lease),
  });
  asker?.show();
  if (!wasDriving) regainFocus();
  wasDriving = driving;
}

/** @param {DisplayView} shown */
function isSlow({ state }) {
  if (state !== "connecting") connectingSince = now();
  return now() - connectingSince > SLOW_MS;
}

/** Who has control? And are we still signed in? A stream that ends with "not permitted" does not say. */
async function refresh() {
  if (!visible() || signedOut) return;
  noticeSleep();
  const { ok, status } = await lease.refresh();
  stale = !ok;
  signedOut ||= status === 401;
  if (stale) loadNews();
  if (ok) display.permitted();
  draw();
}

/** In a window beside the page; without that script, in its place. */
async function signIn() {
  const beside = await import("./signin.js").catch(() => null);
  if (beside) beside.signIn(data.login, data.signedIn);
  else location.assign(`${data.login}?next=${location.pathname}`);
}

/** Signed in again, in whatever window: go on from here, as somebody else anew. */
async function comeBack() {
  if (!signedOut || !data.login) return;
  const user = await import("./signin.js").then((module) => module.whoIsIn(data.signedIn)).catch(() => null);
  if (!user || !signedOut) return;
  signedOut = false;
  display.stop();
  if (user === data.user) return display.restart(), refresh();
  identity.remember(null);
  location.reload();
}

/** Control comes first: a stream can be dialled again at any time. */
function wake() {
  comeBack();
  if (signedOut) return;
  lease.wake(); // also before the page is hidden, for timers are slow then
  if (!visible()) return;
  display.wake();
  refresh();
}

/** Timers stand still while the machine sleeps; nothing else tells of it for certain. */
function noticeSleep() {
  if (now() - tickedAt > SLEPT_MS && visible()) cameBack(tickedAt);
  tickedAt = now();
}

/** @param {number} since */
function cameBack(since) {
  tickedAt = now();
  Object.assign(absence, { hiddenAt: since, backAt: tickedAt });
  wake();
}

function seenOrHidden() {
  if (visible()) return cameBack(absence.hiddenAt);
  absence.hiddenAt = now();
  wake();
}

function start() {
  ui.start();
  lease.start();
  display.start();
  leaseChanged();
  if (keptLook()) loadTools();
  setTimeout(refresh, TICK_MS); // the stream tells it sooner
}

function stop() {
  display.stop();
  lease.stop();
  ui.stop();
}

start();
setInterval(() => (noticeSleep(), draw()), TICK_MS);
setInterval(refresh, REFRESH_MS);
setInterval(() => display.view.why === 4411 && refresh(), HIDDEN_MS);
addEventListener("online", wake);
addEventListener("focus", comeBack);
new BroadcastChannel("desktopctl:signedin").addEventListener("message", comeBack);
document.addEventListener("visibilitychange", seenOrHidden);
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => event.persisted && start()); // back from the browser's cache

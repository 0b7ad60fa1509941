import { gettext } from "./gettext.js";
import { Identity } from "./identity.js";
import { pass } from "./pass.js";

/**
 * Opens a control link: exchanges the ticket behind `#ticket=` for a bearer that is kept in memory
 * alone, and starts the page with it. No cookie is sent or kept. A page of EMBED_ORIGINS that frames
 * this one may listen, take and release (docs/embedding.md); nobody else is told or heard.
 */

const ENDED = gettext("This link has been used or has expired. Ask for a new one.");
const AWAY = gettext("No connection to the server.");
const TIMEOUT_MS = 10_000;
const HEARD = ["take", "release"];

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);
/** @param {string} name @returns {any} */
const button = (name) => document.querySelector(`[data-act="${name}"]`);
const [root, status] = [get("display"), get("status")];

const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
history.replaceState(null, "", location.pathname); // nobody reads it over a shoulder, or in a history

// --- The page around this one ---------------------------------------------------------------------
const origins = root.dataset.origins.split(" ");
let listener = "";
let told = "";

addEventListener("message", ({ source, origin, data }) => {
  if (parent === self || source !== parent || !origins.includes(origin) || data?.desktopctl !== 1) return;
  if (HEARD.includes(data.type)) press(data.type);
  if (data.type !== "listen") return;
  listener = origin;
  told = "";
  tell();
});

/** To the origin that listens, and to no other that the frame around us may have come to by now. */
function tell() {
  const { state, mode, controller = "none" } = root.dataset;
  const message = { desktopctl: 1, type: "state", state, mode, controller, status: status.textContent };
  const text = JSON.stringify(message);
  if (listener && text !== told) parent.postMessage(message, listener);
  told = text;
}

/** As a person may. @param {string} name */
function press(name) {
  if (!button(name).hidden) button(name).click();
}

new MutationObserver(tell).observe(root, { attributeFilter: ["data-state", "data-mode", "data-controller"] });
new MutationObserver(tell).observe(status, { childList: true });

// --- The link -------------------------------------------------------------------------------------
let kept = "{}";
Object.assign(pass, {
  storage: () => ({ getItem: () => kept, setItem: (/** @type {string} */ _, /** @type {string} */ text) => (kept = text) }),
  locks: undefined,
  csrf: () => "",
});
const identity = new Identity({ ...pass, workspace: "", crypto });
await identity.claim();

/** @returns {Promise<any>} what the ticket opens; null where it opens nothing, undefined without an answer */
async function exchange() {
  if (!ticket) return null;
  const response = await fetch("/api/links/exchange", {
    method: "POST",
    credentials: "omit",
    cache: "no-store",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ticket, client_id: identity.clientId }),
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch(() => null);
  const data = await response?.json().catch(() => undefined);
  if (response?.ok) return data;
  return response && [400, 410].includes(response.status) ? null : undefined;
}

/** @param {string} state @param {string} words */
function say(state, words) {
  root.dataset.state = state;
  status.textContent = words;
}

/** @returns {Promise<void>} once "Try now" has been pressed */
function asked() {
  button("retry").hidden = false;
  return new Promise((resolve) => button("retry").addEventListener("click", () => resolve(), { once: true }));
}

async function open() {
  let opened = await exchange();
  while (opened === undefined) {
    say("disconnected", AWAY);
    await asked();
    button("retry").hidden = true;
    say("connecting", gettext("Connecting…"));
    opened = await exchange();
  }
  return opened;
}

/** @param {{bearer: string, workspace: {id: string, name: string}}} opened */
async function start({ bearer, workspace: { id, name } }) {
  let keepalive = false;
  pass.fetch = (url, init) =>
    fetch(url, { ...init, keepalive, credentials: "omit", headers: { ...init?.headers, Authorization: `Bearer ${bearer}` } });
  // Before main.js stops: it cannot come back, for it forgets its bearer; so it keeps nobody waiting.
  addEventListener("pagehide", ({ persisted }) => {
    keepalive = !persisted;
    if (keepalive) press("release");
  });
  Object.assign(root.dataset, { workspace: id, name, api: `/api/workspaces/${id}/display` });
  document.title = name;
  document.querySelectorAll("h1").forEach((heading) => (heading.textContent = name));
  get("screen").ariaLabel = gettext("Desktop %(name)s", { name });
  await import("./main.js");
}

const opened = await open();
if (opened) await start(opened);
else say("ended", ENDED);

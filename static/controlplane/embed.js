import { button, get } from "./elements.js";
import { gettext } from "./gettext.js";
import { Host, press } from "./host.js";
import { Identity } from "./identity.js";
import { pass } from "./pass.js";

/**
 * Opens a control link: exchanges the ticket behind `#ticket=` for a bearer that is kept in memory
 * alone, and starts the page with it. No cookie is sent or kept.
 */

const ENDED = gettext("This link has been used or has expired. Ask for a new one.");
const AWAY = gettext("No connection to the server.");
const MISSING = gettext("The display program could not be loaded.");
const TIMEOUT_MS = 10_000;

const [root, status] = [get("display"), get("status")];
const host = new Host();

const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket");
history.replaceState(null, "", location.pathname); // nobody reads it over a shoulder, or in a history

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

/** Until there is something, with "Try now" between the tries. @template T @param {() => Promise<T | undefined>} get @param {string} words @returns {Promise<T>} */
async function untilThere(get, words) {
  for (;;) {
    const found = await get();
    if (found !== undefined) return found;
    say("disconnected", words);
    button("retry").hidden = false;
    await new Promise((resolve) => button("retry").addEventListener("click", resolve, { once: true }));
    button("retry").hidden = true;
    say("connecting", gettext("Connecting…"));
  }
}

/** @param {{bearer: string, workspace: {id: string, name: string}}} opened */
async function start({ bearer, workspace: { id, name } }) {
  let keepalive = false;
  pass.fetch = (url, init) =>
    fetch(url, { ...init, keepalive, credentials: "omit", headers: { ...init?.headers, Authorization: `Bearer ${bearer}` } });
  // Before main.js stops: it cannot come back, for it forgets its bearer; so it keeps nobody waiting.
  addEventListener("pagehide", ({ persisted }) => {
    keepalive = !persisted;
    if (keepalive) press("release"); // hidden while an agent waits: leaving is no consent, so the desktop parks
  });
  Object.assign(root.dataset, { workspace: id, name, api: `/api/workspaces/${id}/display` });
  document.title = name;
  document.querySelectorAll("h1").forEach((heading) => (heading.textContent = name));
  get("screen").ariaLabel = gettext("Desktop %(name)s", { name });
  host.lease = (await untilThere(() => import("./main.js").catch(() => undefined), MISSING)).lease;
}

const opened = await untilThere(exchange, AWAY);
if (opened) await start(opened);
else say("ended", ENDED);

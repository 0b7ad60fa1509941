import { announcement, badgeOf, factsOf, holderOf, viewersOf } from "./cards.js";
import { Events } from "./events.js";
import { gettext } from "./gettext.js";

/** The list of desktops stays as things are, without a reload: each event changes its card in place. */

const list = /** @type {HTMLElement} */ (document.querySelector("main.list"));
const news = /** @type {HTMLElement} */ (list.querySelector("#news"));
const fresh = /** @type {HTMLElement} */ (list.querySelector("#fresh"));
const out = /** @type {HTMLElement} */ (list.querySelector("#out"));
const api = "/api";

/** @type {Map<string, HTMLElement>} */
const cards = new Map();
for (const card of /** @type {NodeListOf<HTMLElement>} */ (list.querySelectorAll("[data-workspace]"))) {
  cards.set(card.dataset.workspace ?? "", card);
}
/** All that need no reload to be found; the other pages of a long list are counted in by the first hello. */
const expected = new Set(cards.keys());
const search = /** @type {HTMLInputElement | null} */ (list.querySelector("#q"));
let isPaged = list.querySelector(".pages") !== null || Boolean(search?.value);

/** What is known of each. @type {Map<string, {viewers?: number, display?: Shown}>} */
const facts = new Map();
/** @type {string[]} */
const sentences = [];

const events = new Events({
  name: `desktopctl:events:${list.dataset.user}`,
  locks: navigator.locks,
  channel: (name) => new BroadcastChannel(name),
  open: (query) => new EventSource(`${api}/events${query}`),
  probe: () => fetch(`${api}/workspaces`, { cache: "no-store" }).then(({ status }) => status, () => 0),
  timers: { set: (callback, ms) => setTimeout(callback, ms), clear: (id) => clearTimeout(id) },
  now: Date.now,
  random: Math.random,
  visible: () => document.visibilityState === "visible",
});

/** @type {Record<string, (data: any) => void>} */
const acts = {
  hello({ workspaces, late }) {
    if (isPaged) for (const slug of workspaces) expected.add(slug);
    isPaged = false;
    fresh.hidden &&= workspaces.every((/** @type {string} */ slug) => expected.has(slug));
    if (!late) for (const slug of cards.keys()) if (!workspaces.includes(slug)) acts.gone({ workspace: slug });
  },
  control({ workspace, control }) {
    if (!expected.has(workspace)) fresh.hidden = false;
    const card = cards.get(workspace);
    if (!card) return;
    delete card.dataset.gone;
    part(card, ".holder").dataset.controller = control.controller;
    if (say(card, ".holder", holderOf(control))) announce(`${card.querySelector("h2")?.textContent}: ${holderOf(control)}.`);
    say(card, ".facts", factsOf(control));
  },
  viewers({ workspace, viewers }) {
    learn(workspace, { viewers });
  },
  display({ workspace, display }) {
    const card = cards.get(workspace);
    if (card) part(card, ".badge").dataset.status = display.status;
    if (card) say(card, ".badge", badgeOf(display));
    learn(workspace, { display });
  },
  gone({ workspace }) {
    const card = cards.get(workspace);
    if (!card) return;
    card.dataset.gone = "";
    say(card, ".holder", gettext("Not available any more"));
    say(card, ".facts", "");
  },
};

/** @param {HTMLElement} card @param {string} name */
function part(card, name) {
  return /** @type {HTMLElement} */ (card.querySelector(name));
}

/** @param {HTMLElement} card @param {string} name @param {string} text @returns {boolean} whether it is news */
function say(card, name, text) {
  const element = part(card, name);
  if (element.textContent === text) return false;
  element.textContent = element.title = text;
  return true;
}

/** @param {string} slug @param {{viewers?: number, display?: Shown}} more */
function learn(slug, more) {
  const known = { ...facts.get(slug), ...more };
  facts.set(slug, known);
  const card = cards.get(slug);
  if (card && known.viewers !== undefined && known.display) say(card, ".viewers", viewersOf(known.viewers, known.display));
}

/** Together what comes together. @param {string} sentence */
function announce(sentence) {
  if (sentences.push(sentence) === 1) setTimeout(() => (news.textContent = announcement(sentences.splice(0))), 0);
}

events.addEventListener("event", (event) => {
  const { type, data } = /** @type {CustomEvent} */ (event).detail;
  acts[type](data);
});
events.addEventListener("signedout", () => {
  out.hidden = false;
  announce(gettext("You are signed out."));
});
// Whoever it is now: what they may see is another list.
new BroadcastChannel("desktopctl:signedin").addEventListener("message", () => out.hidden || location.reload());
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || document.activeElement === search) return;
  event.preventDefault();
  search?.select();
});
const wake = () => events.wake();
events.start();
addEventListener("online", wake);
document.addEventListener("visibilitychange", wake);
addEventListener("pagehide", () => events.stop());
addEventListener("pageshow", (event) => event.persisted && events.start()); // back from the browser's cache

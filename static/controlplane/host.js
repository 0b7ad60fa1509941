import { button, get } from "./elements.js";

/**
 * The page that frames this one. If it is of EMBED_ORIGINS it may listen, take, release and hand back
 * (docs/embedding.md); nobody else is told or heard.
 */

const ACTS = ["take", "release", "handback"];
const OUTCOMES = ["done", "could_not", "skipped"];

export class Host {
  /** @type {import("./lease.js").Lease | null} once the page has started */ lease = null;
  #root = get("display");
  #status = get("status");
  #listener = ""; // its origin
  #told = "";

  constructor() {
    addEventListener("message", (event) => this.#heard(event));
    const observer = new MutationObserver(() => this.#tell());
    observer.observe(this.#root, { attributeFilter: ["data-state", "data-mode", "data-controller"] });
    observer.observe(this.#status, { childList: true });
    observer.observe(this.#root.querySelector(".tools"), { subtree: true, attributeFilter: ["hidden", "disabled"] });
  }

  /** @param {MessageEvent} event */
  #heard({ source, origin, data }) {
    const isAllowed = this.#root.dataset.origins.split(" ").includes(origin);
    if (parent === self || source !== parent || !isAllowed || data?.desktopctl !== 1) return;
    if (data.type === "listen") this.#listen(origin);
    else if (data.type === "handback") this.#handBack(data);
    else if (ACTS.includes(data.type)) press(data.type);
  }

  /** @param {string} origin */
  #listen(origin) {
    this.#listener = origin;
    this.#told = "";
    this.#tell();
  }

  /** To the origin that listens, and to no other that the frame around us may have come to by now. */
  #tell() {
    const { state, mode, controller = "none" } = this.#root.dataset;
    const can = ACTS.filter((name) => !button(name).hidden && !button(name).disabled);
    const message = { desktopctl: 1, type: "state", state, mode, controller, can, status: this.#status.textContent };
    const text = JSON.stringify(message);
    if (this.#listener && text !== this.#told) parent.postMessage(message, this.#listener);
    this.#told = text;
  }

  /** As the page's own dialog does; without an outcome the agent would learn nothing. @param {{outcome?: any, note?: any}} how */
  #handBack({ outcome, note = "" }) {
    if (!button("handback").hidden && OUTCOMES.includes(outcome)) this.lease?.handBack(outcome, String(note));
  }
}

/** As a person may. @param {string} name of a button */
export function press(name) {
  if (!button(name).hidden) button(name).click();
}

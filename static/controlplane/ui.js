import { button, get } from "./elements.js";
import { Emitter } from "./emitter.js";

/**
 * The page's elements: shows what it is told, tells what people do, decides nothing.
 *
 * Events: one for each button, by its `data-act` (take, move, …); `enter`, the focus comes to the desktop.
 */

const MODIFIER = /^(Control|Alt|Shift)/;

export class Ui extends Emitter {
  /** Where noVNC puts its canvas. @type {HTMLElement} */
  screen = get("screen");
  #root = get("display");
  /** What the server has written into the page, by the names of the data attributes. @type {Record<string, string>} */
  told = { ...this.#root.dataset };
  #still = get("still");
  #listening = new AbortController();
  #down = new Set(); // keys
  #isAlone = false;
  #isChord = false;

  start() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    /** @type {(target: EventTarget, type: string, act: (event: any) => any, capture?: boolean) => void} */
    const on = (target, type, act, capture = false) => target.addEventListener(type, act, { signal, capture });
    on(this.#root, "click", (event) => this.#clicked(event));
    on(this.screen, "focus", () => this.emit("enter"));
    on(this.#root, "keydown", (event) => this.#keyDown(event), true);
    on(this.#root, "keyup", (event) => this.#keyUp(event), true);
    // noVNC lets go of keys when the window loses the focus, but not when its canvas does.
    on(this.screen, "focusout", () => window.dispatchEvent(new Event("blur")));
    on(window, "blur", () => ((this.#isChord = false), this.#down.clear()));
  }

  stop() {
    this.#listening.abort();
  }

  /** @param {Show} show */
  render({ display, driving, mode, controller, status, facts, delay, age, handing, asks, told, offers, hides }) {
    Object.assign(this.#root.dataset, { state: display.state, mode, controller, attempt: display.attempt });
    for (const [id, text] of Object.entries({ status, waits: status, facts, delay, age, handing, asks, told })) {
      // A screen reader announces again what is written again.
      if (get(id).textContent !== text) get(id).textContent = text;
    }
    get("status").title = status;
    get("call").hidden = !asks;
    get("leave").hidden = !driving;
    button("hide").setAttribute("aria-pressed", hides);
    if (driving) this.screen.tabIndex = 0;
    else this.screen.removeAttribute("tabindex");
    if (!driving && this.screen.contains(document.activeElement)) this.#root.focus();
    this.#offer(offers);
  }

  /** Keep the picture, which is about to go. */
  freeze() {
    const canvas = this.screen.querySelector("canvas");
    if (!canvas?.width) return;
    const { width, height } = canvas;
    Object.assign(this.#still, { width, height, hidden: false });
    this.#still.getContext("2d").drawImage(canvas, 0, 0);
  }

  thaw() {
    this.#still.hidden = true;
  }

  get isFrozen() {
    return !this.#still.hidden;
  }

  /** Whether the focus may go to the desktop, or is there. */
  get isIdle() {
    const active = document.activeElement;
    return !active || active === document.body || active === this.#root || this.screen.contains(active);
  }

  /** @param {Offers} offers */
  #offer(offers) {
    const focused = document.activeElement?.closest("button");
    const wasIn = button("signin").hidden;
    for (const [name, offer] of Object.entries(offers)) this.#offerOne(name, offer);
    const isOut = wasIn && offers.signin && this.isIdle;
    if (!isOut && !focused?.hidden && !focused?.disabled) return;
    const next = ["take", "move", "ask", "withdraw", "reconnect", "retry", "signin"].find((name) => offers[name]?.why === "");
    (next ? button(next) : this.#root).focus();
  }

  /** @param {string} name @param {Offer | null} offer */
  #offerOne(name, offer) {
    const element = button(name);
    const why = offer?.why ?? "";
    const hidden = !offer || (name === "fullscreen" && !document.fullscreenEnabled);
    Object.assign(element, { hidden, disabled: why !== "", title: why || (element.dataset.hint ?? "") });
    Object.assign(get(`why-${name}`) ?? {}, { textContent: why });
  }

  /** @param {MouseEvent & {target: any}} event */
  #clicked(event) {
    const act = event.target.closest("button")?.dataset.act;
    // The second click of a double click on "Take control" would hit "Release control".
    if (!act || (act === "release" && event.detail > 1)) return;
    this.emit(act);
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (!MODIFIER.test(event.code)) this.#isAlone = false;
    else if (this.#down.size === 0) this.#isAlone = true;
    this.#down.add(keyOf(event));
    this.#isChord = this.#isAlone && this.#down.size === 3;
  }

  /** Ctrl, Alt and Shift, pressed together and let go alone, leave the desktop. @param {KeyboardEvent} event */
  #keyUp(event) {
    this.#down.delete(keyOf(event));
    if (!this.#isChord || this.#down.size) return;
    this.#isChord = false;
    setTimeout(() => button(button("release").hidden ? "handback" : "release").focus(), 0); // after noVNC has seen the key go up
  }
}

/** The key, whichever of the two. @param {KeyboardEvent} event */
const keyOf = ({ code }) => code.replace(/(Left|Right)$/, "");

import { Emitter } from "./emitter.js";
import { NAMED, keysBetween, keysymOf } from "./keys.js";

/**
 * The page's elements: shows what it is told, and tells what people do. The only module that
 * touches the DOM; it decides nothing.
 *
 * Events: one for each button, by its `data-act` (take, move, release, withdraw, hand, keep, open,
 * reconnect, retry, signin, dismiss, cad); `force` ({note, close}) and `ask` ({message}), by the dialogs
 * of that id; `keys` ({keysyms}); `paste` ({text, keysym, isMeta}, text null
 * where the browser does not give it); `edit` and `copy` ({text}); `enter`, focus comes to the desktop.
 */

const PASTE_MS = 150;
const PADDING = "·".repeat(32); // soft keyboards tell of a backspace only by what it erased
const MODIFIER = /^(Control|Alt|Shift)/;

/** @param {string} id @returns {any} */
const get = (id) => document.getElementById(id);
/** The first one where there are two. @param {string} name @returns {any} */
const button = (name) => document.querySelector(`[data-act="${name}"]`);

export class Ui extends Emitter {
  /** Where noVNC puts its canvas. @type {HTMLElement} */
  screen = get("screen");
  #root = get("display");
  #still = get("still");
  #soft = get("soft");
  #panel = get("panel");
  #text = get("text");
  #status = "";
  #told = "";
  #softText = PADDING;
  #listening = new AbortController();
  /** @type {Set<string>} */ #down = new Set();
  #isAlone = false;
  #isChord = false;
  /** @type {{keysym: number, isMeta: boolean, timer: any} | null} */ #pasting = null;

  start() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    /** @type {(target: EventTarget, type: string, act: (event: any) => any, capture?: boolean) => void} */
    const on = (target, type, act, capture = false) => target.addEventListener(type, act, { signal, capture });
    on(this.#root, "click", (event) => this.#clicked(event));
    for (const dialog of document.querySelectorAll("dialog")) on(dialog, "close", () => this.#decided(dialog));
    on(this.#root, "mousedown", (event) => this.#keepFocus(event));
    on(this.#text, "input", () => this.emit("edit", { text: this.#text.value }));
    on(this.#panel, "keydown", (event) => event.key === "Escape" && this.#togglePanel());
    on(this.screen, "focus", () => this.emit("enter"));
    on(this.screen, "keydown", (event) => this.#keyDown(event), true);
    on(this.screen, "keyup", (event) => this.#keyUp(event), true);
    // noVNC lets go of keys when the window loses the focus, but not when its canvas does.
    on(this.screen, "focusout", () => window.dispatchEvent(new Event("blur")));
    on(document, "paste", (event) => this.#pasted(event));
    on(this.#soft, "keydown", (event) => this.#softKey(event));
    on(this.#soft, "input", (event) => this.#softInput(event));
    on(this.#soft, "blur", () => this.#toggleSoft(false));
    on(window, "blur", () => ((this.#isChord = false), this.#down.clear()));
    on(document, "fullscreenchange", () => this.#press("fullscreen", document.fullscreenElement !== null));
  }

  stop() {
    this.#listening.abort();
  }

  /** @param {Show} show */
  render({ display, driving, mode, status, facts, delay, age, holder, asks, offers }) {
    Object.assign(this.#root.dataset, { state: display.state, mode, attempt: display.attempt });
    // Unchanged text is not written again: a screen reader would announce it again.
    if (status !== this.#status) Object.assign(get("status"), { textContent: status, title: status });
    this.#status = status;
    for (const [id, text] of Object.entries({ facts, delay, age, holder, asks })) get(id).textContent = text;
    get("call").hidden = !asks;
    const told = asks.replace(/ in \d+ s/, ""); // the seconds are for the eye alone
    if (told !== this.#told) get("told").textContent = told;
    this.#told = told;
    get("leave").hidden = !driving;
    if (driving) this.screen.tabIndex = 0;
    else this.screen.removeAttribute("tabindex");
    if (!driving && this.screen.contains(document.activeElement)) this.#root.focus();
    this.#offer(offers);
  }

  /** Keep the picture that is about to go. */
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

  /** @param {string} text */
  showText(text) {
    this.#text.value = text;
  }

  /** @param {string} sentence */
  say(sentence) {
    get("said").textContent = sentence;
  }

  /** @param {Offers} offers */
  #offer(offers) {
    const focused = document.activeElement?.closest("button");
    for (const [name, offer] of Object.entries(offers)) this.#offerOne(name, offer);
    if (offers.keyboard?.why !== "") this.#toggleSoft(false);
    if (!focused || !(focused.hidden || focused.disabled)) return;
    const next = ["take", "move", "ask", "withdraw", "reconnect", "retry", "signin"].find((name) => offers[name]?.why === "");
    (next ? button(next) : this.#root).focus();
  }

  /** @param {string} name @param {Offer | null} offer */
  #offerOne(name, offer) {
    const element = button(name);
    const why = offer?.why ?? "";
    const hidden = !offer || (name === "fullscreen" && !document.fullscreenEnabled);
    Object.assign(element, { hidden, disabled: why !== "", title: why || (element.dataset.hint ?? "") });
    const words = get(`why-${name}`);
    if (words) words.textContent = why;
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const act = /** @type {Element} */ (event.target).closest("button")?.dataset.act;
    // The second click of a double click on "Take control" would hit "Release control".
    if (!act || (act === "release" && event.detail > 1)) return;
    if (get(act)?.showModal) this.#question(get(act));
    else if (act === "cancel") /** @type {any} */ (event.target).closest("dialog").close();
    else if (act === "clipboard") this.#togglePanel();
    else if (act === "keyboard") this.#toggleSoft(this.#soft.hidden);
    else if (act === "fullscreen") this.#toggleFullscreen();
    else this.emit(act, { text: this.#text.value });
  }

  /** @param {HTMLDialogElement} dialog */
  #question(dialog) {
    dialog.querySelector("form")?.reset();
    dialog.returnValue = "";
    dialog.showModal();
  }

  /** @param {HTMLDialogElement} dialog */
  #decided(dialog) {
    if (!dialog.returnValue) return; // cancelled
    this.emit(dialog.id, Object.fromEntries(new FormData(dialog.querySelector("form") ?? undefined)));
  }

  #togglePanel() {
    const isOpen = this.#panel.hidden;
    this.#panel.hidden = !isOpen;
    button("clipboard").setAttribute("aria-expanded", isOpen);
    (isOpen ? this.#text : button("clipboard")).focus();
  }

  /** A press on "Keyboard" must not first blur, and so close, what it is to close. @param {MouseEvent} event */
  #keepFocus(event) {
    if (button("keyboard").contains(event.target)) event.preventDefault();
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.#root.requestFullscreen().catch(() => {});
  }

  /** @param {boolean} isOn */
  #toggleSoft(isOn) {
    if (this.#soft.hidden === !isOn) return;
    this.#soft.hidden = !isOn;
    this.#soft.value = this.#softText = PADDING;
    this.#press("keyboard", isOn);
    if (isOn) this.#soft.focus();
  }

  /** @param {string} name @param {boolean} isPressed */
  #press(name, isPressed) {
    button(name).setAttribute("aria-pressed", isPressed);
  }

  /** @param {KeyboardEvent} event */
  #softKey(event) {
    const keysym = NAMED[event.key];
    if (!keysym || event.isComposing) return;
    event.preventDefault();
    this.emit("keys", { keysyms: [keysym] });
  }

  /** @param {InputEvent} event */
  #softInput(event) {
    const keysyms = keysBetween(this.#softText, this.#soft.value);
    this.#softText = this.#soft.value;
    this.emit("keys", { keysyms });
    if (!event.isComposing) this.#soft.value = this.#softText = PADDING;
  }

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (!MODIFIER.test(event.code)) this.#isAlone = false;
    else if (this.#down.size === 0) this.#isAlone = true;
    this.#down.add(keyOf(event));
    this.#isChord = this.#isAlone && this.#down.size === 3;
    const isPaste = (event.ctrlKey || event.metaKey) && !event.altKey && event.code === "KeyV";
    if (isPaste && this.screen.hasAttribute("tabindex")) this.#expectPaste(event);
  }

  /** Ctrl, Alt and Shift, pressed together and let go alone, leave the desktop. @param {KeyboardEvent} event */
  #keyUp(event) {
    this.#down.delete(keyOf(event));
    if (!this.#isChord || this.#down.size) return;
    this.#isChord = false;
    setTimeout(() => button("release")?.focus(), 0); // after noVNC has seen the key go up
  }

  /** Keep the shortcut from noVNC, so that the browser pastes; noVNC would swallow it. @param {KeyboardEvent} event */
  #expectPaste(event) {
    event.stopImmediatePropagation();
    if (event.repeat) return;
    const timer = setTimeout(() => this.#readClipboard(), PASTE_MS);
    this.#pasting = { keysym: keysymOf(event.key), isMeta: event.metaKey, timer };
  }

  async #readClipboard() {
    this.#paste((await navigator.clipboard?.readText().catch(() => null)) ?? null);
  }

  /** @param {ClipboardEvent} event */
  #pasted(event) {
    if (!this.screen.contains(document.activeElement)) return;
    event.preventDefault();
    this.#paste(event.clipboardData?.getData("text/plain") ?? null);
  }

  /** @param {string | null} text */
  #paste(text) {
    const { keysym, isMeta, timer } = this.#pasting ?? { keysym: 0x76, isMeta: false, timer: 0 };
    this.#pasting = null;
    clearTimeout(timer);
    this.emit("paste", { text, keysym, isMeta });
  }
}

/** The key, whichever of the two on a keyboard. @param {KeyboardEvent} event */
function keyOf({ code }) {
  return code.replace(/(Left|Right)$/, "");
}

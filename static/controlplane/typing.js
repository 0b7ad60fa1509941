import { button, get } from "./elements.js";
import { Emitter } from "./emitter.js";
import { NAMED, isPlain, keysBetween, keysymOf } from "./keys.js";

/**
 * What is typed past noVNC: with the keyboard of a phone or an input method, into a field of the page's
 * own, and the shortcut for pasting.
 *
 * Events: `keys` ({keysyms}), one after the other; `paste` ({text, keysym, isMeta}), text null where the
 * browser does not give it.
 */

const PASTE_MS = 150;
const PADDING = "·".repeat(32); // soft keyboards tell of a backspace only by what it erased

export class Typing extends Emitter {
  #screen = get("screen");
  #soft = get("soft");
  #opener = button("keyboard");
  #text = PADDING;
  #isDriving = false;
  /** @type {{keysym: number, isMeta: boolean, timer: any} | null} */ #pasting = null;

  constructor() {
    super();
    /** @type {(target: EventTarget, type: string, act: (event: any) => any, capture?: boolean) => void} */
    const on = (target, type, act, capture = false) => target.addEventListener(type, act, { capture });
    on(this.#opener, "mousedown", (event) => event.preventDefault()); // or it blurs what it is to close
    on(this.#soft, "keydown", (event) => this.#key(event));
    for (const type of ["input", "compositionend"]) on(this.#soft, type, (event) => this.#input(event));
    on(this.#soft, "blur", () => this.#toggle(false));
    on(this.#screen, "keydown", (event) => this.#shortcut(event), true);
    on(document, "paste", (event) => this.#pasted(event));
  }

  /** @param {boolean} mayType @param {boolean} isDriving */
  render(mayType, isDriving) {
    this.#isDriving = isDriving;
    if (!mayType) this.#toggle(false);
  }

  /** Bring up the keyboard, or put it away. */
  toggle() {
    this.#toggle(this.#soft.hidden);
  }

  /** @param {boolean} isOn */
  #toggle(isOn) {
    if (this.#soft.hidden === !isOn) return;
    this.#soft.hidden = !isOn;
    this.#soft.value = this.#text = PADDING;
    this.#opener.setAttribute("aria-pressed", String(isOn));
    if (isOn) this.#soft.focus();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    const keysym = NAMED[event.key];
    if (!keysym || event.isComposing) return;
    event.preventDefault();
    this.emit("keys", { keysyms: [keysym] });
  }

  /** @param {InputEvent} event */
  #input(event) {
    if (event.isComposing && !isPlain(this.#soft.value.replace(PADDING, ""))) return;
    const keysyms = keysBetween(this.#text, this.#soft.value);
    this.#text = this.#soft.value;
    this.emit("keys", { keysyms });
    if (!event.isComposing) this.#soft.value = this.#text = PADDING;
  }

  /** Keep the shortcut from noVNC, so that the browser pastes; noVNC would swallow it. @param {KeyboardEvent} event */
  #shortcut(event) {
    const isPaste = (event.ctrlKey || event.metaKey) && !event.altKey && event.code === "KeyV";
    if (!isPaste || !this.#isDriving) return;
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
    if (!this.#screen.contains(document.activeElement)) return;
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

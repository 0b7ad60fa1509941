import { button, get } from "./elements.js";
import { Emitter } from "./emitter.js";
import { NAMED, isPlain, keysBetween, keysymOf } from "./keys.js";

/**
 * The elements of tools.js: its panels and dialogs, the soft keyboard, and the shortcut for pasting.
 *
 * Events: `keys` ({keysyms}), one after the other; `combo` ({keysyms}), together; `hold` ({keysym, down});
 * `paste` ({text, keysym, isMeta}), text null where the browser does not give it; `edit`, `copy` and
 * `typed` ({text}); `look` (a Look); `report`; `force` ({note, close}), `ask` ({message}) and `handback`
 * ({outcome, note}), by the dialogs.
 */

const PASTE_MS = 150;
const PADDING = "·".repeat(32); // soft keyboards tell of a backspace only by what it erased

/** @param {Element} button @param {boolean} isPressed */
const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));

export class Panels extends Emitter {
  #screen = get("screen");
  #soft = get("soft");
  #text = get("text");
  #view = get("view");
  #panels = [get("panel"), get("combos"), this.#view];
  #softText = PADDING;
  #report = "";
  #isDriving = false;
  /** @type {Look} */ #look;
  /** @type {{keysym: number, isMeta: boolean, timer: any} | null} */ #pasting = null;

  /** @param {Look} look */
  constructor(look) {
    super();
    this.#look = look;
    /** @type {(target: EventTarget, type: string, act: (event: any) => any, capture?: boolean) => void} */
    const on = (target, type, act, capture = false) => target.addEventListener(type, act, { capture });
    for (const panel of this.#panels) {
      on(panel, "keydown", (event) => event.key === "Escape" && this.toggle(openerOf(panel).dataset.act));
      on(panel, "click", (event) => this.#clicked(event.target.closest("button")?.dataset ?? {}, event.target));
    }
    on(openerOf(this.#soft), "mousedown", (event) => event.preventDefault()); // or it blurs what it is to close
    on(this.#text, "input", () => this.emit("edit", { text: this.#text.value }));
    on(this.#view, "change", () => this.#chooseLook({}));
    on(document, "fullscreenchange", () => press(button("fullscreen"), document.fullscreenElement !== null));
    for (const dialog of document.querySelectorAll("dialog")) {
      on(dialog, "click", (event) => event.target.dataset.act === "cancel" && dialog.close());
      on(dialog, "close", () => this.#decided(dialog));
    }
    on(document, "paste", (event) => this.#pasted(event));
    on(this.#soft, "keydown", (event) => this.#softKey(event));
    for (const type of ["input", "compositionend"]) on(this.#soft, type, (event) => this.#softInput(event));
    on(this.#soft, "blur", () => this.#toggleSoft(false));
    on(this.#screen, "keydown", (event) => this.#keyDown(event), true);
    for (const type of ["mousedown", "touchstart"]) on(this.#screen, type, (event) => this.#grab(event), true);
    this.#chooseLook(look);
  }

  /** @param {Offers} offers @param {boolean} isDriving @param {string} report */
  render(offers, isDriving, report) {
    this.#isDriving = isDriving;
    if (offers.keyboard?.why !== "") this.#toggleSoft(false);
    if (offers.combos?.why !== "") this.#closeCombos();
    this.#report = report;
    this.#showReport();
    this.#markDrag();
  }

  /** Not under the hand of who selects it, to copy it. */
  #showReport() {
    const [shown, chosen] = [get("report"), getSelection()];
    const isChosen = chosen && !chosen.isCollapsed && chosen.containsNode(shown, true);
    if (!this.#view.hidden && !isChosen) shown.textContent = this.#report;
  }

  /** Open what this button stands for, or close it. @param {string} act */
  toggle(act) {
    if (act === "fullscreen") return toggleFullscreen();
    if (get(act)?.showModal) return question(get(act));
    if (act === "keyboard") return this.#toggleSoft(this.#soft.hidden);
    const panel = this.#panels.find((each) => openerOf(each).dataset.act === act);
    const isOpen = panel.hidden;
    // One at a time: they lie in the same place.
    for (const each of this.#panels) this.#show(each, isOpen && each === panel);
    this.#showReport();
    const first = panel.querySelector("textarea, .keys button");
    return (isOpen ? first : openerOf(panel)).focus();
  }

  /** @param {string} question whose control the dialog is about to end */
  aim(question) {
    get("force-title").textContent = question;
  }

  get pictureSize() {
    const { width, height } = this.#screen.querySelector("canvas") ?? {};
    return width ? `${width} × ${height}` : "–";
  }

  /** @param {HTMLDialogElement} dialog */
  #decided({ id, returnValue, firstElementChild: form }) {
    if (returnValue) this.emit(id, Object.fromEntries(new FormData(/** @type {HTMLFormElement} */ (form))));
  }

  /** @param {string} text */
  showText(text) {
    this.#text.value = text;
  }

  /** @param {string} sentence */
  say(sentence) {
    get("said").textContent = sentence;
  }

  /** @param {string} sentence about the view */
  note(sentence) {
    get("noted").textContent = sentence;
  }

  /** Save what is to be seen of the desktop as a file. @param {string} name */
  async savePicture(name) {
    const canvas = this.#screen.querySelector("canvas");
    const blob = canvas && (await new Promise((resolve) => canvas.toBlob(resolve)));
    if (!blob) return;
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: `${name}.png` });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** @param {DOMStringMap} of what was pressed @param {Element} target */
  #clicked({ act, keys, hold, fit, drag }, target) {
    if (keys) this.emit("combo", { keysyms: keys.split(" ").map(fromHex) });
    if (hold) this.#hold(target.closest("button"), fromHex(hold));
    if (fit) this.#chooseLook({ fit: fit === "yes" });
    if (drag) this.#chooseLook({ drag: !this.#look.drag });
    if (act === "copy" || act === "typed" || act === "report" || act === "shot") this.emit(act, { text: this.#text.value });
  }

  /** @param {any} key @param {number} keysym */
  #hold(key, keysym) {
    const down = key.getAttribute("aria-pressed") !== "true";
    press(key, down);
    this.emit("hold", { keysym, down });
  }

  /** @param {HTMLElement} panel @param {boolean} isOpen */
  #show(panel, isOpen) {
    panel.hidden = !isOpen;
    openerOf(panel).setAttribute("aria-expanded", isOpen);
  }

  /** Control is gone, and the server has let go of what was held down. */
  #closeCombos() {
    this.#show(get("combos"), false);
    for (const key of document.querySelectorAll("[data-hold]")) press(key, false);
  }

  /** @param {Partial<Look>} change */
  #chooseLook(change) {
    const [quality, compression] = [get("quality"), get("compression")];
    if ("quality" in change) [quality.value, compression.value] = [change.quality, change.compression];
    this.#look = { ...this.#look, ...change, quality: Number(quality.value), compression: Number(compression.value) };
    const { fit, drag } = this.#look;
    for (const each of this.#view.querySelectorAll("[data-fit]")) press(each, fit === (each.dataset.fit === "yes"));
    const grip = this.#view.querySelector("[data-drag]");
    press(grip, drag && !fit);
    grip.disabled = fit;
    this.#markDrag();
    this.emit("look", this.#look);
  }

  /** Whether a press on the picture moves it: always while watching, for nothing else would happen. */
  get #drags() {
    return !this.#look.fit && (this.#look.drag || !this.#isDriving);
  }

  #markDrag() {
    this.#screen.classList.toggle("grip", this.#drags);
  }

  /** Before noVNC sees it. Touches scroll by themselves. @param {MouseEvent} event */
  #grab(event) {
    if (!this.#drags) return;
    event.stopPropagation();
    if (event.type !== "mousedown") return;
    const place = this.#screen.firstElementChild; // noVNC's, which scrolls
    const done = new AbortController();
    let { clientX: x, clientY: y } = event;
    /** @param {MouseEvent} move */
    const pull = (move) => {
      move.stopPropagation();
      place.scrollBy(x - move.clientX, y - move.clientY);
      ({ clientX: x, clientY: y } = move);
    };
    const options = { signal: done.signal, capture: true }; // noVNC keeps them from others
    addEventListener("mousemove", pull, options);
    addEventListener("mouseup", () => done.abort(), options);
  }

  /** @param {boolean} isOn */
  #toggleSoft(isOn) {
    if (this.#soft.hidden === !isOn) return;
    this.#soft.hidden = !isOn;
    this.#soft.value = this.#softText = PADDING;
    press(openerOf(this.#soft), isOn);
    if (isOn) this.#soft.focus();
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
    if (event.isComposing && !isPlain(this.#soft.value.replace(PADDING, ""))) return;
    const keysyms = keysBetween(this.#softText, this.#soft.value);
    this.#softText = this.#soft.value;
    this.emit("keys", { keysyms });
    if (!event.isComposing) this.#soft.value = this.#softText = PADDING;
  }

  /** Keep the shortcut from noVNC, so that the browser pastes; noVNC would swallow it. @param {KeyboardEvent} event */
  #keyDown(event) {
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

/** @param {HTMLElement} panel @returns {any} the button that opens it */
function openerOf(panel) {
  return document.querySelector(`[aria-controls="${panel.id}"]`);
}

/** @param {any} dialog */
function question(dialog) {
  dialog.firstElementChild.reset();
  dialog.returnValue = ""; // what it has when it is cancelled
  dialog.showModal();
}

function toggleFullscreen() {
  const change = document.fullscreenElement ? document.exitFullscreen() : get("display").requestFullscreen();
  change.catch(() => {}); // the button shows what came of it
}

/** To the browser's clipboard, if the browser lets us. @param {string} text @returns {Promise<boolean>} whether it did */
export async function writeText(text) {
  if (!navigator.clipboard || !document.hasFocus()) return false;
  return navigator.clipboard.writeText(text).then(() => true, () => false);
}

/** @param {string} digits */
function fromHex(digits) {
  return parseInt(digits, 16);
}

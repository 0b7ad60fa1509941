import { button, get } from "./elements.js";
import { Emitter } from "./emitter.js";

/**
 * The panels and dialogs of tools.js.
 *
 * Events: `combo` ({keysyms}), pressed together; `hold` ({keysym, down}); `edit`, `copy` and `typed`
 * ({text}); `look` (a Look); `report`; `shot`; `force` ({note, close}), `ask` ({message}) and `handback`
 * ({outcome, note}), by the dialogs.
 */

/** @param {Element} button @param {boolean} isPressed */
const press = (button, isPressed) => button.setAttribute("aria-pressed", String(isPressed));

export class Panels extends Emitter {
  #screen = get("screen");
  #text = get("text");
  #view = get("view");
  #panels = [get("panel"), get("combos"), this.#view];
  #report = "";
  /** @type {Look} */ #look;

  /** @param {Look} look */
  constructor(look) {
    super();
    this.#look = look;
    /** @type {(target: EventTarget, type: string, act: (event: any) => any) => void} */
    const on = (target, type, act) => target.addEventListener(type, act);
    for (const panel of this.#panels) {
      on(panel, "keydown", (event) => event.key === "Escape" && this.toggle(openerOf(panel).dataset.act));
      on(panel, "click", (event) => this.#clicked(event.target.closest("button")?.dataset ?? {}, event.target));
    }
    on(this.#text, "input", () => this.emit("edit", { text: this.#text.value }));
    on(this.#view, "change", () => this.#chooseLook({}));
    on(document, "fullscreenchange", () => press(button("fullscreen"), document.fullscreenElement !== null));
    for (const dialog of document.querySelectorAll("dialog")) {
      on(dialog, "click", (event) => event.target.dataset.act === "cancel" && dialog.close());
      on(dialog, "close", () => this.#decided(dialog));
    }
    this.#chooseLook(look);
  }

  /** @param {Offers} offers @param {string} report */
  render(offers, report) {
    if (offers.combos?.why !== "") this.#closeCombos();
    this.#report = report;
    this.#showReport();
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
    this.emit("look", this.#look);
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

import { NAMED, keysBetween } from "./keys.js";

/**
 * The page's elements: shows what it is told, and tells what people do. The only module that
 * touches the DOM; it decides nothing.
 *
 * Events: one for each button, by its `data-act` (take, move, release, reconnect, retry, signin,
 * dismiss, cad); `force` ({note}); `keys` ({keysyms}); `paste` ({text, keysym, isMeta}, text null
 * where the browser does not give it); `edit` and `copy` ({text}); `enter`, focus comes to the desktop.
 */

const PASTE_MS = 150;
const PADDING = "·".repeat(32); // soft keyboards tell of a backspace only by what it erased
const MODIFIER = /^(Control|Alt|Shift)/;

export class Ui extends EventTarget {
  #root;
  #page;
  #screen;
  #still;
  #soft;
  #panel;
  #dialog;
  #shown = "";
  #listening = new AbortController();
  /** @type {Set<string>} */ #chord = new Set();
  #isAlone = false;
  #isChord = false;
  /** @type {{keysym: number, isMeta: boolean, timer: number} | null} */ #pasting = null;

  /** @param {HTMLElement} root the `<main>` of the page */
  constructor(root) {
    super();
    this.#root = root;
    this.#page = root.ownerDocument;
    this.#screen = this.#get("screen");
    this.#still = /** @type {HTMLCanvasElement} */ (this.#get("still"));
    this.#soft = /** @type {HTMLInputElement} */ (this.#get("soft"));
    this.#panel = this.#get("panel");
    this.#dialog = /** @type {HTMLDialogElement} */ (this.#get("end"));
  }

  /** Where noVNC puts its canvas. */
  get screen() {
    return this.#screen;
  }

  start() {
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    /** @type {(target: EventTarget, type: string, act: (event: any) => void, capture?: boolean) => void} */
    const on = (target, type, act, capture = false) => target.addEventListener(type, act, { signal, capture });
    on(this.#root, "click", (event) => this.#clicked(event));
    on(this.#dialog, "close", () => this.#decided());
    on(this.#get("text"), "input", () => this.#tell("edit", { text: this.#text.value }));
    on(this.#panel, "keydown", (event) => void (event.key === "Escape" && this.#togglePanel()));
    on(this.#screen, "focus", () => this.#tell("enter"));
    on(this.#screen, "keydown", (event) => this.#keyDown(event), true);
    on(this.#screen, "keyup", (event) => this.#keyUp(event), true);
    on(this.#screen, "focusout", () => this.#left());
    on(this.#page, "paste", (event) => this.#pasted(event));
    on(this.#soft, "keydown", (event) => this.#softKey(event));
    on(this.#soft, "input", (event) => this.#softInput(event));
    on(this.#soft, "blur", () => this.#toggleSoft(false));
    on(window, "blur", () => ((this.#isChord = false), this.#chord.clear()));
    on(this.#page, "fullscreenchange", () => this.#press("fullscreen", Boolean(this.#page.fullscreenElement)));
  }

  stop() {
    this.#listening.abort();
  }

  /**
   * @param {object} show
   * @param {DisplayView} show.display
   * @param {boolean} show.driving
   * @param {string} show.mode
   * @param {string} show.status
   * @param {string} show.facts
   * @param {string} show.age
   * @param {string} show.holder
   * @param {import("./view.js").Offers} show.offers
   */
  render({ display, driving, mode, status, facts, age, holder, offers }) {
    Object.assign(this.#root.dataset, { state: display.state, mode, attempt: display.attempt });
    // Unchanged text is not written again: a screen reader would announce it again.
    if (status !== this.#shown) this.#get("status").textContent = this.#shown = status;
    this.#get("status").title = status;
    this.#get("facts").textContent = facts;
    this.#get("age").textContent = age;
    this.#get("holder").textContent = holder;
    this.#get("leave").hidden = !driving;
    if (driving) this.#screen.tabIndex = 0;
    else this.#screen.removeAttribute("tabindex");
    this.#offer(offers);
  }

  /** Keep the picture that is about to go. */
  freeze() {
    const canvas = this.#screen.querySelector("canvas");
    if (!canvas?.width) return;
    this.#still.width = canvas.width;
    this.#still.height = canvas.height;
    this.#still.getContext("2d")?.drawImage(canvas, 0, 0);
    this.#still.hidden = false;
  }

  thaw() {
    this.#still.hidden = true;
  }

  /** Whether there is an old picture to be seen. */
  get isFrozen() {
    return !this.#still.hidden;
  }

  /** Whether the focus is free to go to the desktop, or there already. */
  get isIdle() {
    const active = this.#page.activeElement;
    return !active || active === this.#page.body || active === this.#root || this.#screen.contains(active);
  }

  /** @param {string} text */
  showText(text) {
    this.#text.value = text;
  }

  /** @param {string} sentence */
  say(sentence) {
    this.#get("said").textContent = sentence;
  }

  get #text() {
    return /** @type {HTMLTextAreaElement} */ (this.#get("text"));
  }

  /** @param {string} id */
  #get(id) {
    return /** @type {HTMLElement} */ (this.#page.getElementById(id));
  }

  /** @param {string} name @returns {HTMLButtonElement | null} */
  #button(name) {
    return this.#root.querySelector(`button[data-act="${name}"]`);
  }

  /** @param {import("./view.js").Offers} offers */
  #offer(offers) {
    const focused = /** @type {HTMLButtonElement | null} */ (this.#page.activeElement?.closest("button"));
    for (const [name, offer] of Object.entries(offers)) this.#offerOne(name, offer);
    if (!focused || !(focused.hidden || focused.disabled)) return;
    const next = ["take", "move", "reconnect", "retry", "signin"].map((name) => this.#button(name));
    (next.find((button) => button && !button.hidden && !button.disabled) ?? this.#root).focus();
  }

  /** @param {string} name @param {import("./view.js").Offer | null} offer */
  #offerOne(name, offer) {
    const button = this.#button(name);
    if (!button) return;
    button.hidden = !offer || (name === "fullscreen" && !this.#page.fullscreenEnabled);
    button.disabled = Boolean(offer?.why);
    button.title = offer?.why || (button.dataset.hint ?? "");
    const why = this.#page.getElementById(`why-${name}`);
    if (why) why.textContent = offer?.why ?? "";
  }

  /** @param {MouseEvent} event */
  #clicked(event) {
    const button = /** @type {Element} */ (event.target).closest("button");
    const act = button?.dataset.act;
    // The second click of a double click on "Take control" would hit "Release control".
    if (!act || (act === "release" && event.detail > 1)) return;
    if (act === "force") this.#askNote();
    else if (act === "cancel") this.#dialog.close();
    else if (act === "clipboard") this.#togglePanel();
    else if (act === "keyboard") this.#toggleSoft(Boolean(this.#soft.hidden));
    else if (act === "fullscreen") this.#toggleFullscreen();
    else this.#tell(act, { text: this.#text.value });
  }

  #askNote() {
    /** @type {HTMLFormElement} */ (this.#get("note-form")).reset();
    this.#dialog.returnValue = "";
    this.#dialog.showModal();
  }

  #decided() {
    if (this.#dialog.returnValue !== "end") return;
    this.#tell("force", { note: /** @type {HTMLInputElement} */ (this.#get("note")).value.trim() });
  }

  #togglePanel() {
    this.#panel.hidden = !this.#panel.hidden;
    this.#button("clipboard")?.setAttribute("aria-expanded", String(!this.#panel.hidden));
    (this.#panel.hidden ? this.#button("clipboard") : this.#text)?.focus();
  }

  #toggleFullscreen() {
    if (this.#page.fullscreenElement) this.#page.exitFullscreen();
    else this.#root.requestFullscreen().catch(() => {});
  }

  /** @param {boolean} isOn */
  #toggleSoft(isOn) {
    if (this.#soft.hidden === !isOn) return;
    this.#soft.hidden = !isOn;
    this.#soft.value = PADDING;
    this.#press("keyboard", isOn);
    if (isOn) this.#soft.focus();
  }

  /** @param {string} name @param {boolean} isPressed */
  #press(name, isPressed) {
    this.#button(name)?.setAttribute("aria-pressed", String(isPressed));
  }

  /** @param {KeyboardEvent} event */
  #softKey(event) {
    const keysym = NAMED[event.key];
    if (!keysym || event.isComposing) return;
    event.preventDefault();
    this.#tell("keys", { keysyms: [keysym] });
  }

  /** @param {InputEvent} event */
  #softInput(event) {
    const keysyms = keysBetween(this.#softText, this.#soft.value);
    this.#softText = this.#soft.value;
    this.#tell("keys", { keysyms });
    if (!event.isComposing) this.#soft.value = this.#softText = PADDING;
  }

  #softText = PADDING;

  /** @param {KeyboardEvent} event */
  #keyDown(event) {
    if (!MODIFIER.test(event.code)) this.#isAlone = false;
    else if (this.#chord.size === 0) this.#isAlone = true;
    this.#chord.add(keyOf(event));
    this.#isChord = this.#isAlone && this.#chord.size === 3;
    if (this.#isPaste(event)) this.#expectPaste(event);
  }

  /** Ctrl, Alt and Shift, pressed together and let go alone, leave the desktop. @param {KeyboardEvent} event */
  #keyUp(event) {
    this.#chord.delete(keyOf(event));
    if (!this.#isChord || this.#chord.size) return;
    this.#isChord = false;
    setTimeout(() => this.#button("release")?.focus(), 0); // after noVNC has seen the key go up
  }

  /** @param {KeyboardEvent} event */
  #isPaste({ code, key, ctrlKey, metaKey, altKey }) {
    return (ctrlKey || metaKey) && !altKey && (key.toLowerCase() === "v" || code === "KeyV");
  }

  /** Keep the shortcut from noVNC, so that the browser pastes; noVNC would swallow it. @param {KeyboardEvent} event */
  #expectPaste(event) {
    if (!this.#screen.hasAttribute("tabindex")) return;
    event.stopImmediatePropagation();
    if (event.repeat) return;
    const timer = setTimeout(() => this.#readClipboard(), PASTE_MS);
    this.#pasting = { keysym: event.key.charCodeAt(0), isMeta: event.metaKey, timer: Number(timer) };
  }

  async #readClipboard() {
    const text = await Promise.resolve(navigator.clipboard?.readText()).catch(() => null);
    this.#paste(text ?? null);
  }

  /** @param {ClipboardEvent} event */
  #pasted(event) {
    if (!this.#screen.contains(this.#page.activeElement)) return;
    event.preventDefault();
    this.#paste(event.clipboardData?.getData("text/plain") ?? null);
  }

  /** @param {string | null} text */
  #paste(text) {
    const { keysym, isMeta, timer } = this.#pasting ?? { keysym: 0x76, isMeta: false, timer: 0 };
    this.#pasting = null;
    clearTimeout(timer);
    this.#tell("paste", { text, keysym, isMeta });
  }

  /** The focus leaves the desktop: noVNC lets go of keys when the window loses it, not the canvas. */
  #left() {
    window.dispatchEvent(new Event("blur"));
  }

  /** @param {string} name @param {object} [detail] */
  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** The key, whichever of the two on a keyboard. @param {KeyboardEvent} event */
function keyOf({ code }) {
  return code.replace(/(Left|Right)$/, "");
}

import { Clipboard } from "./clipboard.js";
import { connect } from "./emitter.js";
import { gettext } from "./gettext.js";
import { Grip } from "./grip.js";
import { keepLook, keptLook } from "./look.js";
import { Panels, writeText } from "./panels.js";
import { Typing } from "./typing.js";

/**
 * What watching does without: clipboard, keys that browsers keep, soft keyboard, how the picture is
 * shown, what goes into a bug report. Loaded when one of them is opened, or control is taken.
 */

/** @type {Look} noVNC's own quality and compression */
const LOOK = { fit: true, drag: false, quality: 6, compression: 2 };
const [CONTROL, ALT, DELETE] = [0xffe3, 0xffe9, 0xffff];

export class Tools {
  #with;
  #panels;
  #grip;
  #typing = new Typing();
  #clipboard;
  #target = 0; // the epoch that the dialog is about
  #received = { bytes: 0, at: 0 };
  #rate = 0;

  /** @param {ToolsNeeds} with_ */
  constructor(with_) {
    const { display, lease, timers, clipboardLimit: limit } = with_;
    const look = storedLook();
    this.#with = with_;
    const panels = (this.#panels = new Panels(look));
    const grip = (this.#grip = new Grip(look));
    const clipboard = (this.#clipboard = new Clipboard({
      limit,
      accepts: () => lease.control?.accepts_clipboard !== false,
      isDriving: () => display.driving,
      send: (text) => display.paste(text),
      type: (keysyms) => type(display, keysyms),
      write: writeText,
      timers,
    }));
    connect([
      [this.#typing, "keys", ({ keysyms }) => type(display, keysyms)],
      [this.#typing, "paste", (pasted) => this.#paste(pasted)],
      [panels, "combo", ({ keysyms }) => press(display, keysyms)],
      [panels, "hold", ({ keysym, down }) => display.key(keysym, down)],
      [panels, "edit", ({ text }) => clipboard.edit(text)],
      [panels, "copy", ({ text }) => clipboard.copy(text)],
      [panels, "typed", ({ text }) => clipboard.type(text)],
      [panels, "look", (chosen) => (display.show(chosen), grip.show(chosen), keepLook(chosen))],
      [panels, "shot", () => panels.savePicture(`${with_.name} ${stamp()}`)],
      [panels, "ask", ({ message }) => lease.ask(message.trim())],
      [panels, "force", ({ note, close }) => lease.force(note.trim(), this.#target, Boolean(close))],
      [panels, "handback", ({ outcome, note }) => lease.handBack(outcome, note.trim())],
      [panels, "report", () => this.#copyReport()],
      [clipboard, "text", ({ text }) => panels.showText(text)],
      [clipboard, "say", ({ sentence }) => panels.say(sentence)],
      [display, "clipboard", ({ text }) => clipboard.fromDesktop(text)],
      [display, "unpasted", ({ type }) => clipboard.refused(type)],
    ]);
    display.show(look);
    if (with_.copied) clipboard.fromDesktop(with_.copied);
  }

  /** @param {string} act of its button */
  use(act) {
    if (act === "cad") return this.#ctrlAltDel();
    if (act === "keyboard") return this.#typing.toggle();
    if (act === "force") this.#aim();
    this.#panels.toggle(act);
  }

  #ctrlAltDel() {
    press(this.#with.display, [CONTROL, ALT, DELETE]);
    this.#with.display.focus();
  }

  /** At whoever has control now: it may be somebody else's by the time that the note is written. */
  #aim() {
    const { epoch, controlled_by: name } = /** @type {Control} */ (this.#with.lease.control);
    this.#target = epoch;
    this.#panels.aim(gettext("End %(name)s’s control?", { name }));
  }

  /** @param {Offers} offers */
  render(offers) {
    const { driving } = this.#with.display;
    this.#panels.render(offers, this.#report(false));
    this.#typing.render(offers.keyboard?.why === "", driving);
    this.#grip.render(driving);
  }

  /** @param {{text: string | null, keysym: number, isMeta: boolean}} pasted */
  #paste({ text, keysym, isMeta }) {
    if (!text || this.#clipboard.toDesktop(text)) pressPaste(this.#with.display, keysym, isMeta);
  }

  async #copyReport() {
    const isWritten = await writeText(this.#report(true));
    this.#panels.note(isWritten ? gettext("Copied.") : gettext("The browser does not allow copying. Select the lines and copy them yourself."));
  }

  /** @param {boolean} isForOthers who were not there */
  #report(isForOthers) {
    const { display, lease, name } = this.#with;
    const { state, mode, delay, why, attempt } = display.view;
    const { bytes, stream, server } = display.traffic;
    return [
      isForOthers && `${name}: ${state}, ${mode}`,
      gettext("Round trip: %(time)s ms", { time: delay === null ? "–" : Math.round(delay) }),
      gettext("Received: %(all)s, %(rate)s/s", { all: size(bytes), rate: size(this.#perSecond(bytes)) }),
      gettext("Desktop: %(size)s", { size: this.#panels.pictureSize }),
      gettext("Stream %(stream)s on %(server)s", { stream, server }),
      gettext("Epoch %(epoch)s", { epoch: lease.epoch ?? lease.control?.epoch ?? 0 }),
      isForOthers && `Dials in a row: ${attempt}; last end: ${why || "none"}`,
      isForOthers && `${new Date().toISOString()} ${navigator.userAgent}`,
    ]
      .filter(Boolean)
      .join("\n");
  }

  /** Over the last seconds. @param {number} bytes */
  #perSecond(bytes) {
    const { bytes: before, at } = this.#received;
    const seconds = (performance.now() - at) / 1000;
    if (seconds < 1) return this.#rate;
    this.#rate = Math.max(0, bytes - before) / seconds;
    this.#received = { bytes, at: performance.now() };
    return this.#rate;
  }
}

/** @typedef {Pick<import("./display.js").Display, "key">} Keys where keys go to */

/** Press and release each. @param {Keys} to @param {number[]} keysyms */
function type(to, keysyms) {
  for (const keysym of keysyms) to.key(keysym);
}

/** Press these together: down in order, up in the other. @param {Keys} to @param {number[]} keysyms */
export function press(to, keysyms) {
  for (const keysym of keysyms) to.key(keysym, true);
  for (const keysym of keysyms.toReversed()) to.key(keysym, false);
}

/** The second half of a paste. @param {Keys} to @param {number} keysym @param {boolean} isMeta Cmd stands for Ctrl */
export function pressPaste(to, keysym, isMeta) {
  if (!isMeta) return to.key(keysym);
  to.key(ALT, false); // what noVNC sends for Cmd
  to.key(CONTROL, true);
  to.key(keysym);
  to.key(CONTROL, false);
}

/** How this browser shows pictures. @returns {Look} */
function storedLook() {
  try {
    return { ...LOOK, ...JSON.parse(keptLook() ?? "{}") };
  } catch {
    return LOOK; // not ours
  }
}

/** @param {number} bytes */
function size(bytes) {
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** The time as a part of a file's name. */
function stamp() {
  const now = new Date();
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000);
  return local.toISOString().slice(0, 19).replace("T", " ").replaceAll(":", ".");
}

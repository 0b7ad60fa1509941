import { Emitter } from "./emitter.js";
import { gettext, ngettext } from "./gettext.js";
import { keysymsOf } from "./keys.js";

/**
 * Text between the browser and the desktop, both ways. RFB's clipboard is Latin-1: what does not
 * fit is replaced, and said. Too long a text is not sent at all.
 *
 * Events: `text` ({text}), what the desktop put on its clipboard; `say` ({sentence}).
 */

const TYPING_MS = 300;
const TYPED = 2_000; // characters; a server reads that many keys at once without a queue to speak of
const TAKES_NONE = gettext("This desktop takes no text from here. “Type it” types it instead.");

export class Clipboard extends Emitter {
  #with;
  /** @type {any} */ #typing;

  /** @param {ClipboardNeeds} with_ */
  constructor(with_) {
    super();
    this.#with = with_;
  }

  /** The panel's text changes; it is sent when the typing pauses. @param {string} text */
  edit(text) {
    this.#with.timers.clear(this.#typing);
    this.#typing = this.#with.timers.set(() => this.toDesktop(text), TYPING_MS);
  }

  /** @param {string} text @returns {boolean} whether a paste now makes sense */
  toDesktop(text) {
    const { accepts, isDriving, limit, send, timers } = this.#with;
    timers.clear(this.#typing);
    const characters = [...text.replace(/\r\n?/g, "\n")];
    const [have, most] = [characters.length, limit].map((size) => size.toLocaleString());
    if (!isDriving()) return this.#say(gettext("Take control to send text to the desktop."));
    if (!accepts()) return !this.#say(TAKES_NONE);
    if (characters.length > limit) return this.#say(gettext("The text is too long: %(have)s characters, at most %(most)s can be sent.", { have, most }));
    send(characters.join(""));
    const lost = characters.filter((character) => (character.codePointAt(0) ?? 0) > 0xff).length;
    if (!lost) this.#say(gettext("Sent to the desktop."));
    else this.#say(ngettext("Sent. %(count)s character cannot be sent and became “?”.", "Sent. %(count)s characters cannot be sent and became “?”.", lost));
    return true;
  }

  /** Type it key by key. Unlike what is pasted, that is not only Latin-1. @param {string} text */
  type(text) {
    const { isDriving, type } = this.#with;
    const { keysyms, lost } = keysymsOf(text);
    if (!isDriving()) return this.#say(gettext("Take control to type text in the desktop."));
    if (keysyms.length > TYPED) return this.#say(gettext("The text is too long to be typed: at most %(most)s characters.", { most: TYPED.toLocaleString() }));
    type(keysyms);
    if (!lost) return this.#say(gettext("Typed."));
    return this.#say(
      ngettext("Typed. %(count)s character cannot be typed and was left out.", "Typed. %(count)s characters cannot be typed and were left out.", lost),
    );
  }

  /** @param {string} text */
  async fromDesktop(text) {
    this.emit("text", { text });
    const isWritten = await this.#with.write(text);
    this.#say(isWritten ? gettext("Copied from the desktop to this computer.") : gettext("Copied in the desktop. “Copy” takes it to this computer."));
  }

  /** Copy the panel's text, on a person's click. @param {string} text */
  async copy(text) {
    const isWritten = await this.#with.write(text);
    this.#say(isWritten ? gettext("Copied to this computer.") : gettext("The browser does not allow copying. Allow it in the site’s settings, or select the text and copy it yourself."));
  }

  /** The server has dropped a text. @param {string} why */
  refused(why) {
    this.#say(why === "clipboard_refused" ? TAKES_NONE : gettext("The text is too long for the desktop and was not sent."));
  }

  /** @param {string} sentence @returns {false} */
  #say(sentence) {
    this.emit("say", { sentence });
    return false;
  }
}

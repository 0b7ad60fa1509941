import { Emitter } from "./emitter.js";

/**
 * Text between the browser and the desktop, both ways. RFB's clipboard is Latin-1: what does not
 * fit is replaced, and said. Too long a text is not sent at all.
 *
 * Events: `text` ({text}), what the desktop put on its clipboard; `say` ({sentence}).
 */

const TYPING_MS = 300;

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

  /** @param {string} text @returns {boolean} whether it was sent */
  toDesktop(text) {
    const { isDriving, limit, send, timers } = this.#with;
    timers.clear(this.#typing);
    const characters = [...text.replace(/\r\n?/g, "\n")];
    const [have, most] = [characters.length, limit].map((size) => size.toLocaleString());
    if (!isDriving()) return this.#say("Take control to send text to the desktop.");
    if (characters.length > limit) return this.#say(`The text is too long: ${have} characters, at most ${most} can be sent.`);
    send(characters.join(""));
    const lost = characters.filter((character) => (character.codePointAt(0) ?? 0) > 0xff).length;
    const noun = lost === 1 ? "character" : "characters";
    this.#say(lost ? `Sent. ${lost} ${noun} cannot be sent and became “?”.` : "Sent to the desktop.");
    return true;
  }

  /** @param {string} text */
  async fromDesktop(text) {
    this.emit("text", { text });
    const isWritten = await this.#with.write(text);
    this.#say(isWritten ? "Copied from the desktop to this computer." : "Copied in the desktop. “Copy” takes it to this computer.");
  }

  /** Copy the panel's text, on a person's click. @param {string} text */
  async copy(text) {
    const isWritten = await this.#with.write(text);
    this.#say(isWritten ? "Copied to this computer." : "The browser does not allow copying. Select the text and copy it yourself.");
  }

  /** The server has dropped a text. */
  refused() {
    this.#say("The text is too long for the desktop and was not sent.");
  }

  /** @param {string} sentence @returns {false} */
  #say(sentence) {
    this.emit("say", { sentence });
    return false;
  }
}

/**
 * Text between the browser and the desktop, both ways. RFB's clipboard is Latin-1: what does not
 * fit is replaced, and said. Too long a text is not sent at all.
 *
 * Events: `text` ({text}), what the desktop put on its clipboard; `say` ({sentence}).
 */

const TYPING_MS = 300;

export class Clipboard extends EventTarget {
  #limit;
  #isDriving;
  #send;
  #write;
  #timers;
  /** @type {any} */
  #typing = null;

  /**
   * @param {object} with_
   * @param {number} with_.limit characters that the server lets pass
   * @param {() => boolean} with_.isDriving whether input reaches the desktop now
   * @param {(text: string) => void} with_.send
   * @param {(text: string) => Promise<boolean>} with_.write to the browser's clipboard; whether it could
   * @param {Timers} with_.timers
   */
  constructor({ limit, isDriving, send, write, timers }) {
    super();
    this.#limit = limit;
    this.#isDriving = isDriving;
    this.#send = send;
    this.#write = write;
    this.#timers = timers;
  }

  /** The panel's text changes; it is sent when the typing pauses. @param {string} text */
  edit(text) {
    this.#timers.clear(this.#typing);
    this.#typing = this.#timers.set(() => this.toDesktop(text), TYPING_MS);
  }

  /** @param {string} text @returns {boolean} whether it was sent */
  toDesktop(text) {
    this.#timers.clear(this.#typing);
    if (!this.#isDriving()) return this.#refuse("Take control to send text to the desktop.");
    const plain = text.replace(/\r\n?/g, "\n");
    const characters = [...plain];
    if (characters.length > this.#limit) return this.#refuse(this.#tooLong(characters.length));
    const lost = characters.filter((character) => (character.codePointAt(0) ?? 0) > 0xff).length;
    this.#send(plain);
    this.#say(lost ? `Sent. ${counted(lost)} cannot be sent and became “?”.` : "Sent to the desktop.");
    return true;
  }

  /** @param {string} text */
  async fromDesktop(text) {
    this.#emit("text", { text });
    const isWritten = await this.#write(text);
    this.#say(isWritten ? "Copied from the desktop to this computer." : "Copied in the desktop. “Copy” takes it to this computer.");
  }

  /** Copy the panel's text, on a person's click. @param {string} text */
  async copy(text) {
    const isWritten = await this.#write(text);
    this.#say(isWritten ? "Copied to this computer." : "The browser does not allow copying. Select the text and copy it yourself.");
  }

  /** The server has dropped a text. */
  refused() {
    this.#refuse("The text is too long for the desktop and was not sent.");
  }

  /** @param {number} length */
  #tooLong(length) {
    const [have, most] = [length, this.#limit].map((size) => size.toLocaleString());
    return `The text is too long: ${have} characters, at most ${most} can be sent.`;
  }

  /** @param {string} sentence */
  #refuse(sentence) {
    this.#say(sentence);
    return false;
  }

  /** @param {string} sentence */
  #say(sentence) {
    this.#emit("say", { sentence });
  }

  /** @param {string} name @param {object} detail */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** @param {number} count */
function counted(count) {
  return count === 1 ? "1 character" : `${count} characters`;
}

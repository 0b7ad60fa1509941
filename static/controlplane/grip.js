import { get } from "./elements.js";

/**
 * Moves the picture under the mouse where it is shown in its own size: while watching always, for nothing
 * else would happen; in control where that is chosen. Touches scroll by themselves.
 */
export class Grip {
  #screen = get("screen");
  #isDriving = false;
  /** @type {Look} */ #look;

  /** @param {Look} look */
  constructor(look) {
    this.#look = look;
    for (const type of ["mousedown", "touchstart"]) {
      this.#screen.addEventListener(type, (/** @type {any} */ event) => this.#grab(event), { capture: true }); // before noVNC
    }
    this.#mark();
  }

  /** @param {Look} look */
  show(look) {
    this.#look = look;
    this.#mark();
  }

  /** @param {boolean} isDriving */
  render(isDriving) {
    this.#isDriving = isDriving;
    this.#mark();
  }

  /** Whether a press on the picture moves it. */
  get #moves() {
    return !this.#look.fit && (this.#look.drag || !this.#isDriving);
  }

  #mark() {
    this.#screen.classList.toggle("grip", this.#moves);
  }

  /** @param {MouseEvent} event */
  #grab(event) {
    if (!this.#moves) return;
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
}

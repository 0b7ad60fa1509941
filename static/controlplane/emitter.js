/** The page's parts tell what happens by custom events. */
export class Emitter extends EventTarget {
  /** @param {string} name @param {any} [detail] */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

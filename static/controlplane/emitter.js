/** The page's parts tell what happens by custom events. */
export class Emitter extends EventTarget {
  /** @param {string} name @param {any} [detail] */
  emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Have each `act` called with the detail of that event. @param {[EventTarget, string, (detail: any) => void][]} wires */
export function connect(wires) {
  for (const [from, name, act] of wires) from.addEventListener(name, (/** @type {any} */ { detail }) => act(detail));
}

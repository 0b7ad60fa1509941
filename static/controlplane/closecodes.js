/**
 * What the page does after each close code of the display websocket. A test compares CLOSE_CODES
 * with the server's enum (controlplane/closecodes.py).
 */

/** @typedef {"stop" | "retry" | "retry_at_once" | "retry_later" | "wait"} Action */

/** @type {Readonly<Record<number, Action>>} */
export const CLOSE_CODES = Object.freeze({
  1000: "stop",
  4400: "stop",
  4401: "retry",
  4403: "stop",
  4404: "stop",
  4410: "stop",
  4411: "wait",
  4413: "retry",
  4429: "retry_later",
  4502: "retry",
  4503: "retry_at_once",
  4504: "retry",
  4511: "stop",
});

/** Codes of websocket servers themselves; 1005, 1006, 1011 and all others are the network's. */
const RESTARTS = [1001, 1012];

/**
 * Only an end that the page asked for is clean: 1000 from elsewhere is retried like a lost network.
 *
 * @param {number} code
 * @param {boolean} asked whether this page closed the stream on purpose
 * @returns {Action}
 */
export function actionFor(code, asked = false) {
  if (asked) return "stop";
  if (code === 1000) return "retry";
  return RESTARTS.includes(code) ? "retry_at_once" : (CLOSE_CODES[code] ?? "retry");
}

/** @typedef {"stop" | "retry" | "retry_at_once" | "retry_later" | "wait"} Action */

/** What the page does after a close code; as on the server. @type {Readonly<Record<number, Action>>} */
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

/** A 1000 that comes here is like a lost network: of an end of its own the page hears nothing. @param {number} code @returns {Action} */
export function actionFor(code) {
  if (code === 1000) return "retry";
  if (code === 1001 || code === 1012) return "retry_at_once"; // said by websocket servers themselves
  return CLOSE_CODES[code] ?? "retry";
}

/** Waits before the next try: exponential, with full jitter, so that pages do not come all at once. Pure. */

export const FIRST_MS = 250;
export const CAP_MS = 15_000;
/** How many dials in a row, before a person is asked. */
export const DIALS = 10;

/** The longest wait in ms. @param {number} failures in a row */
export function ceiling(failures) {
  return Math.min(CAP_MS, FIRST_MS * 2 ** failures);
}

/** The wait in ms. @param {number} failures @param {() => number} random */
export function backoff(failures, random) {
  return Math.floor(random() * ceiling(failures));
}

/**
 * The HTTP calls of one workspace's display. Failures are values, never exceptions: `status` 0
 * means that no usable answer came (`code`: network, timeout), else `code` is the server's.
 */

const TIMEOUT_MS = 10_000;
const MAX_RETRY_AFTER_MS = 15_000;

export class Api {
  #fetch;
  #base;
  #clientId;
  #csrf;
  #timers;

  /**
   * @param {object} with_
   * @param {typeof fetch} with_.fetch
   * @param {string} with_.base the address of the display, without a slash at its end
   * @param {string} with_.clientId
   * @param {() => string} with_.csrf the token to send, read at each call: signing in changes it
   * @param {Timers} with_.timers
   */
  constructor({ fetch, base, clientId, csrf, timers }) {
    this.#fetch = fetch;
    this.#base = base;
    this.#clientId = clientId;
    this.#csrf = csrf;
    this.#timers = timers;
  }

  /** @returns {Promise<Answer<Control>>} */
  control() {
    return this.#call("GET", "/control");
  }

  /** @param {{epoch?: number, move?: boolean}} body @returns {Promise<Answer<Grant>>} */
  acquire(body) {
    return this.#call("POST", "/control/acquire", body);
  }

  /** @param {{epoch?: number, force?: boolean, note?: string}} body @returns {Promise<Answer<Control>>} */
  release(body) {
    return this.#call("POST", "/control/release", body);
  }

  /** @returns {Promise<Answer<{session_url: string}>>} */
  observe() {
    return this.#call("POST", "/session", { mode: "observe" });
  }

  /** @param {string} method @param {string} path @param {object} [body] @returns {Promise<Answer>} */
  async #call(method, path, body) {
    const aborter = new AbortController();
    const timer = this.#timers.set(() => aborter.abort(), TIMEOUT_MS);
    try {
      const response = await this.#fetch(this.#base + path, this.#request(method, body, aborter.signal));
      return await read(response);
    } catch {
      return failure(0, aborter.signal.aborted ? "timeout" : "network");
    } finally {
      this.#timers.clear(timer);
    }
  }

  /** @param {string} method @param {object | undefined} body @param {AbortSignal} signal @returns {RequestInit} */
  #request(method, body, signal) {
    /** @type {Record<string, string>} */
    const headers = { Accept: "application/json", "X-Client-Id": this.#clientId };
    if (!body) return { method, headers, signal, cache: "no-store" };
    headers["Content-Type"] = "application/json";
    headers["X-CSRFToken"] = this.#csrf();
    return { method, headers, signal, body: JSON.stringify({ client_id: this.#clientId, ...body }) };
  }
}

/** @param {Response} response @returns {Promise<Answer>} */
async function read(response) {
  const data = await response.json().catch(() => null);
  if (response.ok && data) {
    return { ok: true, status: response.status, code: "", data, current: null, retryAfterMs: 0 };
  }
  const status = response.ok ? 0 : response.status; // a proxy's own page is no answer
  const seconds = Number(response.headers.get("Retry-After")) || 0;
  return {
    ...failure(status, data?.error?.code ?? "network"),
    current: data?.current ?? null,
    retryAfterMs: Math.min(seconds * 1000, MAX_RETRY_AFTER_MS),
  };
}

/** @param {number} status @param {string} code @returns {Answer} */
function failure(status, code) {
  return { ok: false, status, code, data: null, current: null, retryAfterMs: 0 };
}

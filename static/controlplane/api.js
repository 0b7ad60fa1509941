/**
 * The HTTP calls of one workspace's display. Failures are values, never exceptions: `status` 0
 * means that no usable answer came, else `code` is the server's.
 */

const TIMEOUT_MS = 10_000;
const MAX_RETRY_AFTER_MS = 15_000;
/** @type {Answer} */
const NO_ANSWER = { ok: false, status: 0, code: "network", data: null, current: null, retryAfterMs: 0 };

export class Api {
  #with;

  /** @param {ApiNeeds} with_ */
  constructor(with_) {
    this.#with = with_;
  }

  /** @returns {Promise<Answer<Control>>} */
  control() {
    return this.#call("GET", "/control");
  }

  /** One of control's calls. @param {string} name @param {RequestInit} [init] @returns {Promise<Answer>} */
  change(name, body = {}, init) {
    return this.#call("POST", `/control/${name}`, body, init);
  }

  /** @returns {Promise<Answer<{session_url: string}>>} */
  observe() {
    return this.#call("POST", "/session", { mode: "observe" });
  }

  /** @param {string} method @param {string} path @param {object} [body] @param {RequestInit} [init] @returns {Promise<Answer>} */
  async #call(method, path, body, init) {
    const { base, clientId, csrf, fetch, timers } = this.#with;
    const aborter = new AbortController();
    const timer = timers.set(() => aborter.abort(), TIMEOUT_MS);
    /** @type {any} */
    const request = { ...init, method, signal: aborter.signal, cache: "no-store", headers: { "X-Client-Id": clientId } };
    if (body) {
      Object.assign(request.headers, { "Content-Type": "application/json", "X-CSRFToken": csrf() });
      request.body = JSON.stringify({ client_id: clientId, ...body });
    }
    try {
      return await read(await fetch(base + path, request));
    } catch {
      return NO_ANSWER;
    } finally {
      timers.clear(timer);
    }
  }
}

/** @param {Response} response @returns {Promise<Answer>} */
async function read(response) {
  const data = await response.json().catch(() => null);
  const { ok, status, headers } = response;
  if (ok && data) return { ...NO_ANSWER, ok, status, code: "", data };
  const { error, current = null } = data ?? {};
  const retryAfterMs = Math.min(Number(headers.get("Retry-After")) * 1000 || 0, MAX_RETRY_AFTER_MS);
  // A proxy's own page is no answer.
  return { ...NO_ANSWER, status: ok ? 0 : status, code: error?.code ?? "network", current, retryAfterMs };
}

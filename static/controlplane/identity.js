/**
 * Who this tab is: a client_id and the epoch of its control, kept in the tab's own storage, so that
 * a reload resumes control. A duplicated tab has a copy: it finds the lock on its client_id taken and
 * becomes somebody new. Without locks (plain http), the server closes the older stream (4410).
 */

// A reload may ask for the lock a moment before the old page has let go of it.
const LOCK_WAIT_MS = 500;

export class Identity {
  clientId = "";
  /** @type {number | null} */ epoch = null;
  #with;
  #key;

  /** @param {IdentityNeeds} with_ */
  constructor(with_) {
    this.#with = with_;
    this.#key = `desktopctl:${with_.workspace}`;
  }

  /** Find out: after it, `clientId` and `epoch` are set. */
  async claim() {
    const { client_id, epoch } = this.#load();
    if (client_id && (await this.#lock(client_id))) {
      this.clientId = client_id;
      this.epoch = Number.isInteger(epoch) ? epoch : null;
    } else {
      this.clientId = this.#invent();
      this.#lock(this.clientId); // nobody else can have it: no need to wait
    }
    this.remember(this.epoch);
  }

  /** @param {number | null} epoch */
  remember(epoch) {
    this.epoch = epoch;
    try {
      this.#with.storage().setItem(this.#key, JSON.stringify({ client_id: this.clientId, epoch }));
    } catch {
      // Without storage a reload watches instead of resuming control.
    }
  }

  #load() {
    try {
      return JSON.parse(this.#with.storage().getItem(this.#key) ?? "{}") ?? {};
    } catch {
      return {};
    }
  }

  // 26 characters of A-Z, 2-7: 130 random bits. crypto.randomUUID is missing on plain http.
  #invent() {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    return Array.from(this.#with.crypto.getRandomValues(new Uint8Array(26)), (byte) => alphabet[byte % 32]).join("");
  }

  /** Hold the lock for as long as the page lives. @param {string} clientId */
  async #lock(clientId) {
    const { locks } = this.#with;
    return !locks || new Promise((resolve) => {
      const signal = AbortSignal.timeout(LOCK_WAIT_MS);
      const held = () => (resolve(true), new Promise(() => {}));
      locks.request(`desktopctl:${clientId}`, { signal }, held).catch(() => resolve(false));
    });
  }
}

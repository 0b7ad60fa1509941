/**
 * What noVNC takes for its socket: it looks for a WebSocket's names on the object or its prototype.
 * noVNC is shown binary frames alone; text frames are messages of ours. It calls every end clean, so
 * the close code is read here.
 */

export class Channel {
  /** @type {Handler} */ onopen = null;
  /** @type {Handler} */ onmessage = null;
  /** @type {Handler} */ onerror = null;
  /** @type {Handler} */ onclose = null;
  binaryType = "arraybuffer";
  #socket;
  #on;
  #ended = false;
  /** What has come before noVNC was there: the server's greeting. @type {MessageEvent[] | null} */ #early = [];

  /** The token travels as a subprotocol. @param {string} sessionUrl @param {DisplayNeeds["open"]} open @param {ChannelEvents} on */
  constructor(sessionUrl, open, on) {
    const [url, token] = sessionUrl.split("#token=");
    const socket = open(url, ["desktopctl.v1", `desktopctl.token.${token}`]);
    socket.binaryType = "arraybuffer";
    /** @type {(type: string, act: (event: any) => void) => void} */
    const when = (type, act) => socket.addEventListener(type, (event) => this.#ended || act(event));
    when("close", (event) => on.end(event.code, event.reason));
    when("open", (event) => (on.open(), this.onopen?.(event)));
    when("error", (event) => this.onerror?.(event));
    when("message", (event) => this.#take(event));
    this.#socket = socket;
    this.#on = on;
  }

  get protocol() {
    return this.#socket.protocol;
  }

  get readyState() {
    return this.#ended ? 3 : this.#socket.readyState; // 3: closed
  }

  /** noVNC is there, and is shown what has come. */
  flow() {
    const early = this.#early ?? [];
    this.#early = null;
    for (const event of early) this.#show(event);
  }

  /** @param {any} data */
  send(data) {
    if (this.readyState === 1) this.#socket.send(data);
  }

  /** @param {object} message */
  say(message) {
    this.send(JSON.stringify(message));
  }

  close() {
    if (this.readyState < 2) this.#socket.close(1000);
  }

  /** Nothing more in or out, and noVNC is told, whether or not the other end still answers. */
  end() {
    if (this.#ended) return;
    this.close();
    this.#ended = true;
    this.onclose?.({});
  }

  /** @param {MessageEvent} event */
  #take(event) {
    if (typeof event.data !== "string") return this.#early ? void this.#early.push(event) : this.#show(event);
    const message = parse(event.data);
    if (message && typeof message === "object") this.#on.text(message);
  }

  /** @param {MessageEvent} event */
  #show(event) {
    this.onmessage?.(event);
    this.#on.bytes(event.data);
  }
}

/** @param {string} text */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

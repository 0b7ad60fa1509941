/**
 * What noVNC takes for its socket. It owns the real WebSocket and shows noVNC only binary frames;
 * text frames are messages of ours. noVNC calls every end of a socket clean, so the close code is
 * read here, by a listener older than noVNC's.
 *
 * noVNC looks for these names on the object or its own prototype: send close binaryType onerror
 * onmessage onopen protocol readyState.
 */

const CLOSED = 3;
const PROTOCOL = "desktopctl.v1";

export class Channel {
  /** @type {Handler} */ onopen = null;
  /** @type {Handler} */ onmessage = null;
  /** @type {Handler} */ onerror = null;
  /** @type {Handler} */ onclose = null;
  binaryType = "arraybuffer";
  #socket;
  #ended = false;

  /**
   * @param {string} sessionUrl with the token behind `#token=`; the token travels as a subprotocol
   * @param {(url: string, protocols: string[]) => WebSocket} open
   * @param {ChannelEvents} on
   */
  constructor(sessionUrl, open, on) {
    const [url, token] = sessionUrl.split("#token=");
    const socket = open(url, [PROTOCOL, `desktopctl.token.${token}`]);
    socket.binaryType = "arraybuffer";
    /** @type {(type: string, act: (event: any) => void) => void} */
    const when = (type, act) => socket.addEventListener(type, (event) => this.#ended || act(event));
    when("close", (event) => on.end(event.code, event.reason));
    when("open", (event) => (on.open(), this.onopen?.(event)));
    when("error", (event) => this.onerror?.(event));
    when("message", (event) => this.#take(event, on));
    this.#socket = socket;
  }

  get protocol() {
    return this.#socket.protocol;
  }

  get readyState() {
    return this.#ended ? CLOSED : this.#socket.readyState;
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

  /** @param {MessageEvent} event @param {ChannelEvents} on */
  #take(event, on) {
    if (typeof event.data !== "string") {
      this.onmessage?.(event);
      on.bytes(event.data);
      return;
    }
    const message = parse(event.data);
    if (message) on.text(message);
  }
}

/** @param {string} text @returns {any} an object, or null */
function parse(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

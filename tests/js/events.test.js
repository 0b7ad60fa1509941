/** One EventSource for all tabs of a browser, whoever comes and goes. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { Events } from "../../static/controlplane/events.js";
import { FakeClock, settle } from "./support.js";

class FakeSource extends EventTarget {
  readyState = 0;

  /** @param {string} query */
  constructor(query) {
    super();
    this.query = query;
  }

  open() {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }

  /** @param {string} type @param {object} data @param {string} [lastEventId] */
  say(type, data, lastEventId = "") {
    this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
  }

  /** The server refuses: it does not come back by itself. */
  refuse() {
    this.readyState = 2;
    this.dispatchEvent(new Event("error"));
  }

  lose() {
    this.readyState = 0;
    this.dispatchEvent(new Event("error"));
  }

  close() {
    this.readyState = 2;
  }
}

class FakeLocks {
  /** @type {{run: () => Promise<void>, reject: (error: Error) => void}[]} */
  #queue = [];

  /** @param {string} _name @param {{signal: AbortSignal}} options @param {() => Promise<void>} run */
  request(_name, { signal }, run) {
    return new Promise((resolve, reject) => {
      const entry = { run: () => run().then(() => (this.#next(entry), resolve(undefined))), reject };
      signal.addEventListener("abort", () => {
        if (this.#queue.indexOf(entry) <= 0) return;
        this.#queue = this.#queue.filter((each) => each !== entry);
        reject(new Error("aborted"));
      });
      if (this.#queue.push(entry) === 1) entry.run();
    });
  }

  /** @param {any} entry */
  #next(entry) {
    this.#queue = this.#queue.filter((each) => each !== entry);
    this.#queue[0]?.run();
  }
}

/** A browser: its tabs share locks and channels; `sources` are the streams that the server sees. */
class FakeBrowser {
  clock = new FakeClock();
  locks = new FakeLocks();
  /** @type {FakeSource[]} */ sources = [];
  /** @type {Set<any>} */ channels = new Set();
  status = 200;
  isVisible = true;
  probes = 0;
  signedOut = 0;

  /** @param {{locks?: any}} [options] */
  tab({ locks = this.locks } = {}) {
    const events = new Events({
      name: "desktopctl:events:anna",
      locks,
      channel: () => this.#channel(),
      open: (query) => /** @type {any} */ (this.sources[this.sources.push(new FakeSource(query)) - 1]),
      probe: async () => (this.probes++, this.status),
      now: this.clock.now,
      timers: this.clock.timers,
      random: () => 0.5,
      visible: () => this.isVisible,
    });
    /** @type {any[]} */
    const heard = [];
    events.addEventListener("event", (event) => heard.push(/** @type {CustomEvent} */ (event).detail));
    events.addEventListener("signedout", () => this.signedOut++);
    events.start();
    return { events, heard };
  }

  get source() {
    return /** @type {FakeSource} */ (this.sources.at(-1));
  }

  get open() {
    return this.sources.filter((source) => source.readyState < 2).length;
  }

  /** @returns {any} */
  #channel() {
    /** @type {any} */
    const channel = {
      onmessage: null,
      postMessage: (/** @type {any} */ message) => {
        const data = structuredClone(message);
        for (const each of this.channels) if (each !== channel) queueMicrotask(() => each.onmessage?.({ data }));
      },
      close: () => this.channels.delete(channel),
    };
    this.channels.add(channel);
    return channel;
  }
}

const control = (/** @type {string} */ workspace, epoch = 1) => ({ workspace, control: { epoch }, happened: null });

test("two tabs share one stream, and both hear everything", async () => {
  const browser = new FakeBrowser();
  const [first, second] = [browser.tab(), browser.tab()];
  browser.source.open();
  await settle();
  second.heard.length = 0;
  browser.source.say("control", control("desk"), "7");
  await settle();
  assert.equal(browser.sources.length, 1);
  assert.deepEqual(first.heard, [{ type: "control", data: control("desk") }]);
  assert.deepEqual(second.heard, first.heard);
});

test("when the tab with the stream closes, the next one resumes where it ended", async () => {
  const browser = new FakeBrowser();
  const [first, second] = [browser.tab(), browser.tab()];
  browser.source.say("control", control("desk"), "7");
  await settle();
  first.events.stop();
  await settle();
  assert.equal(browser.open, 1);
  assert.equal(browser.source.query, "?last_event_id=7");
  browser.source.say("viewers", { workspace: "desk", viewers: 2 }, "7");
  assert.equal(second.heard.at(-1).type, "viewers");
  assert.equal(first.heard.length, 1);
});

test("a tab that is not the one with the stream closes without a trace", async () => {
  const browser = new FakeBrowser();
  const [first, second] = [browser.tab(), browser.tab()];
  second.events.stop();
  await settle();
  browser.source.say("gone", { workspace: "desk" });
  await settle();
  assert.equal(browser.sources.length, 1);
  assert.deepEqual([first.heard.length, second.heard.length], [1, 0]);
});

test("a tab that comes later is told how things are, and not of what is gone", async () => {
  const browser = new FakeBrowser();
  browser.tab();
  browser.source.say("hello", { workspaces: ["desk", "old"] });
  browser.source.say("control", control("desk", 1), "7");
  browser.source.say("control", control("old", 1), "8");
  browser.source.say("control", control("desk", 2), "9");
  browser.source.say("control", control("new", 1), "10");
  browser.source.say("gone", { workspace: "old" });
  const late = browser.tab();
  await settle();
  assert.deepEqual(late.heard, [
    { type: "hello", data: { workspaces: ["desk", "new"], late: true } },
    { type: "control", data: control("desk", 2) },
    { type: "control", data: control("new", 1) },
  ]);
});

test("a lost link is left to the browser, which resumes by itself", async () => {
  const browser = new FakeBrowser();
  browser.tab();
  browser.source.open();
  browser.source.lose();
  await browser.clock.advance(60_000);
  assert.deepEqual([browser.sources.length, browser.probes], [1, 0]);
});

test("a busy server is tried again, later each time, and resumed", async () => {
  const browser = new FakeBrowser();
  browser.tab();
  browser.source.say("control", control("desk"), "7");
  browser.status = 503;
  for (const wait of [125, 250, 500]) {
    const count = browser.sources.length;
    browser.source.refuse();
    await browser.clock.advance(wait - 1);
    assert.equal(browser.sources.length, count);
    await browser.clock.advance(1);
    assert.equal(browser.sources.length, count + 1);
    assert.equal(browser.source.query, "?last_event_id=7");
  }
  browser.source.open();
  browser.source.refuse();
  await browser.clock.advance(125);
  assert.equal(browser.open, 1);
});

test("who is signed out stops, and says so, in every tab", async () => {
  const browser = new FakeBrowser();
  browser.tab();
  browser.tab();
  browser.status = 401;
  browser.source.refuse();
  await settle();
  browser.source.refuse(); // the next tab has tried as well
  await settle();
  await browser.clock.advance(600_000);
  assert.deepEqual([browser.open, browser.sources.length, browser.signedOut], [0, 2, 2]);
});

test("on waking, a stream that was silent for long is opened anew, whichever tab wakes", async () => {
  const browser = new FakeBrowser();
  const [, second] = [browser.tab(), browser.tab()];
  browser.source.open();
  second.events.wake();
  await settle();
  assert.equal(browser.sources.length, 1);
  browser.clock.sleep(60_000);
  second.events.wake();
  await settle();
  assert.deepEqual([browser.sources.length, browser.open], [2, 1]);
});

test("on waking, what waits to try again tries at once", async () => {
  const browser = new FakeBrowser();
  const { events } = browser.tab();
  browser.status = 503;
  browser.source.refuse();
  await settle();
  events.wake();
  assert.equal(browser.sources.length, 2);
  await browser.clock.advance(60_000);
  assert.equal(browser.sources.length, 2);
});

test("without locks each tab has a stream of its own, while it is visible", async () => {
  const browser = new FakeBrowser();
  const tabs = [browser.tab({ locks: null }), browser.tab({ locks: null })];
  assert.equal(browser.open, 2);
  browser.isVisible = false;
  for (const { events } of tabs) events.wake();
  assert.equal(browser.open, 0);
  browser.isVisible = true;
  tabs[0].events.wake();
  assert.equal(browser.open, 1);
});

test("stopping and starting again, as a page from the browser's cache does, resumes", async () => {
  const browser = new FakeBrowser();
  const { events, heard } = browser.tab();
  browser.source.say("control", control("desk"), "7");
  events.stop();
  events.stop();
  events.wake();
  await settle();
  assert.equal(browser.open, 0);
  events.start();
  await settle();
  assert.equal(browser.source.query, "?last_event_id=7");
  browser.source.say("control", control("desk", 2), "8");
  assert.equal(heard.length, 2);
});

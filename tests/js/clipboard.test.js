import assert from "node:assert/strict";
import test from "node:test";

import { Clipboard } from "../../static/controlplane/clipboard.js";
import { FakeClock } from "./support.js";

/** @param {{accepts?: boolean, isDriving?: boolean, mayWrite?: boolean}} [situation] */
function build({ accepts = true, isDriving = true, mayWrite = true } = {}) {
  const clock = new FakeClock();
  const sent = /** @type {string[]} */ ([]);
  const typed = /** @type {number[]} */ ([]);
  const written = /** @type {string[]} */ ([]);
  const said = /** @type {string[]} */ ([]);
  const shown = /** @type {string[]} */ ([]);
  const clipboard = new Clipboard({
    limit: 10,
    accepts: () => accepts,
    isDriving: () => isDriving,
    send: (text) => sent.push(text),
    type: (keysyms) => void typed.push(...keysyms),
    write: async (text) => mayWrite && written.push(text) > 0,
    timers: clock.timers,
  });
  clipboard.addEventListener("say", (event) => said.push(/** @type {any} */ (event).detail.sentence));
  clipboard.addEventListener("text", (event) => shown.push(/** @type {any} */ (event).detail.text));
  return { clipboard, clock, sent, typed, written, said, shown };
}

test("text goes to the desktop with its line ends as the desktop writes them", () => {
  const { clipboard, sent, said } = build();
  assert.equal(clipboard.toDesktop("a\r\nb\rc"), true);
  assert.deepEqual(sent, ["a\nb\nc"]);
  assert.deepEqual(said, ["Sent to the desktop."]);
});

test("typing is sent when it pauses, as a whole", async () => {
  const { clipboard, clock, sent } = build();
  for (const text of ["h", "he", "hey"]) {
    clipboard.edit(text);
    await clock.advance(100);
  }
  assert.deepEqual(sent, []);
  await clock.advance(300);
  assert.deepEqual(sent, ["hey"]);
});

test("characters beyond Latin-1 are counted and named as lost", () => {
  const { clipboard, said } = build();
  clipboard.toDesktop("é€");
  clipboard.toDesktop("日本😀");
  assert.deepEqual(said, [
    "Sent. 1 character cannot be sent and became “?”.",
    "Sent. 3 characters cannot be sent and became “?”.",
  ]);
});

test("a desktop that takes no texts is sent none, and pastes what it has itself", () => {
  const { clipboard, sent, said } = build({ accepts: false });
  assert.equal(clipboard.toDesktop("text"), true);
  assert.deepEqual(sent, []);
  assert.deepEqual(said, ["This desktop takes no text from here. “Type it” types it instead."]);
});

test("too long a text is not sent, and the sentence says how long it may be", () => {
  const { clipboard, sent, said } = build();
  assert.equal(clipboard.toDesktop("x".repeat(11)), false);
  assert.deepEqual(sent, []);
  assert.deepEqual(said, ["The text is too long: 11 characters, at most 10 can be sent."]);
});

test("a watcher's text stays here", () => {
  const { clipboard, sent, said } = build({ isDriving: false });
  assert.equal(clipboard.toDesktop("hello"), false);
  assert.deepEqual(sent, []);
  assert.deepEqual(said, ["Take control to send text to the desktop."]);
});

test("what the desktop copies is shown, and put on this computer's clipboard where allowed", async () => {
  const { clipboard, written, shown, said } = build();
  await clipboard.fromDesktop("from there");
  assert.deepEqual(shown, ["from there"]);
  assert.deepEqual(written, ["from there"]);
  assert.deepEqual(said, ["Copied from the desktop to this computer."]);
});

test("where the browser forbids it, the page says how to get the text", async () => {
  const { clipboard, shown, said } = build({ mayWrite: false });
  await clipboard.fromDesktop("from there");
  assert.deepEqual(shown, ["from there"]);
  await clipboard.copy("from there");
  assert.match(said[0] ?? "", /“Copy” takes it/);
  assert.match(said[1] ?? "", /copy it yourself/);
});

test("a text that the server dropped is reported", () => {
  const { clipboard, said } = build();
  clipboard.refused("clipboard_too_large");
  assert.deepEqual(said, ["The text is too long for the desktop and was not sent."]);
});

test("a text is typed key by key, beyond Latin-1 too, and what is no key is left out and counted", () => {
  const { clipboard, sent, typed, said } = build();
  clipboard.type("a\r\n€\u0007");
  assert.deepEqual(typed, [0x61, 0xff0d, 0x010020ac]);
  assert.deepEqual(sent, []);
  assert.deepEqual(said, ["Typed. 1 character cannot be typed and was left out."]);
});

test("nothing is typed without control, nor what is too long", () => {
  const watching = build({ isDriving: false });
  watching.clipboard.type("a");
  assert.deepEqual([watching.typed, watching.said], [[], ["Take control to type text in the desktop."]]);
  const { clipboard, typed, said } = build();
  clipboard.type("x".repeat(2001));
  assert.deepEqual(typed, []);
  assert.match(said[0], /too long to be typed/);
});

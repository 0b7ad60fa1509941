import assert from "node:assert/strict";
import test from "node:test";

import { isPlain, NAMED, keysBetween, keysymOf } from "../../static/controlplane/keys.js";

test("Latin-1 is its own keysym and the rest of Unicode has a plane of its own", () => {
  assert.equal(keysymOf("a"), 0x61);
  assert.equal(keysymOf("é"), 0xe9);
  assert.equal(keysymOf("€"), 0x010020ac);
  assert.equal(keysymOf("😀"), 0x0101f600);
});

test("new lines and tabs are keys", () => {
  assert.equal(keysymOf("\n"), NAMED.Enter);
  assert.equal(keysymOf("\t"), NAMED.Tab);
});

test("a step of a composition is typed only with keys that every keyboard has", () => {
  assert.deepEqual(["", "he", "´", "かn", "é"].map(isPlain), [true, true, false, false, false]);
});

test("typing appends", () => {
  assert.deepEqual(keysBetween("ab", "abc"), [0x63]);
});

test("erasing is backspaces", () => {
  assert.deepEqual(keysBetween("abc", "a"), [NAMED.Backspace, NAMED.Backspace]);
});

test("a correction erases what differs and types what is new", () => {
  assert.deepEqual(keysBetween("teh", "the"), [NAMED.Backspace, NAMED.Backspace, 0x68, 0x65]);
});

test("a pair of surrogates is one key", () => {
  assert.deepEqual(keysBetween("a😀", "a"), [NAMED.Backspace]);
});

import assert from "node:assert/strict";
import test from "node:test";

import { CLOSE_CODES, actionFor } from "../../static/controlplane/closecodes.js";

test("a clean end that the page has not asked for is retried", () => {
  assert.equal(actionFor(1000), "retry");
});

test("a restarting server is dialled again at once, by either way of saying so", () => {
  for (const code of [4503, 1012, 1001]) assert.equal(actionFor(code), "retry_at_once");
});

test("a lost network and unknown codes are retried", () => {
  for (const code of [1005, 1006, 1011, 1013, 4999]) assert.equal(actionFor(code), "retry");
});

test("what cannot get better by dialling stops", () => {
  for (const code of [4400, 4403, 4404, 4410, 4511]) assert.equal(actionFor(code), "stop");
});

test("a spent token, a slow link and a failing desktop are retried", () => {
  for (const code of [4401, 4413, 4502, 4504]) assert.equal(actionFor(code), "retry");
});

test("a hidden desktop is waited for, and too many streams are retried later", () => {
  assert.equal(actionFor(4411), "wait");
  assert.equal(actionFor(4429), "retry_later");
});

test("the table is plain data that cannot be changed", () => {
  assert.ok(Object.isFrozen(CLOSE_CODES));
});

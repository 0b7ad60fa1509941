import assert from "node:assert/strict";
import test from "node:test";

import { CAP_MS, DIALS, FIRST_MS, backoff, ceiling } from "../../static/controlplane/backoff.js";

test("the first wait is at most 250 ms and each later one may be twice as long", () => {
  assert.equal(FIRST_MS, 250);
  assert.deepEqual([0, 1, 2, 3].map(ceiling), [250, 500, 1000, 2000]);
});

test("no wait is longer than 15 s, however often it failed", () => {
  assert.equal(ceiling(10), 15_000);
  assert.equal(ceiling(5000), CAP_MS);
});

test("the jitter is full: anything from nothing to the ceiling", () => {
  assert.equal(backoff(3, () => 0), 0);
  assert.equal(backoff(3, () => 0.5), 1000);
  assert.ok(backoff(3, () => 0.9999) < ceiling(3));
});

test("a row of ten dials lasts about half a minute", () => {
  const middle = Array.from({ length: DIALS }, (_, i) => backoff(i, () => 0.5));
  const total = middle.reduce((sum, wait) => sum + wait, 0);
  assert.ok(total > 30_000 && total < 45_000, `${total} ms`);
});

/** The words of the list. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { announcement, badgeOf, factsOf, holderOf, viewersOf } from "../../static/controlplane/cards.js";
import { FakeClock, FakeServer } from "./support.js";

/** @param {null | "me" | "Otto" | "agent"} holder @param {object} more @returns {Control} */
function controlOf(holder, more = {}) {
  const server = new FakeServer(new FakeClock());
  server.holder = holder;
  return { ...server.control(), ...more };
}

test("who has control, in words", () => {
  const closed = { by: "Root User", note: "maintenance", at: "2026-03-01T12:00:00Z" };
  assert.equal(holderOf(controlOf(null)), "Nobody has control");
  assert.equal(holderOf(controlOf("me")), "You have control");
  assert.equal(holderOf(controlOf("Otto")), "Otto has control");
  assert.equal(holderOf(controlOf("agent", { controlled_by: "mailbot" })), "An agent has control: mailbot");
  assert.equal(holderOf(controlOf(null, { closed })), "Closed by Root User: “maintenance”");
  assert.equal(holderOf(controlOf(null, { closed: { ...closed, by: null } })), "Closed by an administrator: “maintenance”");
});

test("since when, whether they are there, and who asks", () => {
  assert.equal(factsOf(controlOf(null)), "");
  assert.match(factsOf(controlOf("Otto")), /^since \d\d:\d\d( [AP]M)?$/);
  const bare = { acquired_at: null };
  assert.equal(factsOf(controlOf("Otto", { ...bare, holder_connected: false })), "not connected");
  assert.equal(factsOf(controlOf("Otto", { ...bare, requests: [{ by: "Olive" }] })), "Olive asks for control");
  const several = { ...bare, requests: [{ by: "Olive" }, { by: "Oscar" }] };
  assert.equal(factsOf(controlOf("Otto", several)), "2 people ask for control");
  const at = "2026-03-01T12:00:00Z";
  const help = { by: "robot", reason: "captcha", at };
  assert.equal(factsOf(controlOf(null, { agent: "robot", help })), "robot asks for you: “captcha”");
  const parked = { by: "Anna", reason: "expired", at };
  assert.equal(factsOf(controlOf(null, { agent: "robot", parked })), "Anna’s control ended without handing back");
});

test("how many watch what", () => {
  const display = { status: "ready", width: 800, height: 600 };
  assert.equal(viewersOf(0, { ...display, width: null }), "Nobody is watching");
  assert.equal(viewersOf(1, display), "1 viewer · 800×600");
  assert.equal(viewersOf(2, display), "2 viewers · 800×600");
});

test("what is known of the display", () => {
  const said = ["ready", "unreachable", "not_configured", "unknown"].map((status) =>
    badgeOf({ status, width: null, height: null }),
  );
  assert.deepEqual(said, ["Ready", "Cannot be reached", "Not enabled", "Not tried yet"]);
});

test("a few changes are announced one by one, many as a number", () => {
  assert.equal(announcement(["A.", "B."]), "A. B.");
  assert.equal(announcement(["A.", "B.", "C.", "D."]), "Control of 4 desktops has changed.");
});

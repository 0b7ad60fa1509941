import assert from "node:assert/strict";
import test from "node:test";

import { press, pressPaste } from "../../static/controlplane/tools.js";
import { FakePage, json, late, noNetwork, refusal, settle } from "./support.js";

const ACQUIRE = "/control/acquire";
const SESSION = "/session";

/** A page that was live for long enough that its dials count anew. */
async function steady() {
  const page = new FakePage();
  await page.start();
  await page.goLive();
  await page.clock.advance(10_000);
  return page;
}

test("opening the page starts watching at once, with a token as a subprotocol", async () => {
  const page = new FakePage();
  await page.start();
  assert.equal(page.socket.url, "ws://desk/websockify");
  assert.deepEqual(page.socket.protocols, ["desktopctl.v1", "desktopctl.token.t1"]);
  assert.equal(page.display.view.state, "connecting");
  await page.goLive();
  assert.equal(page.display.view.state, "live");
});

test("noVNC is handed the socket in the step in which it is opened", async () => {
  const page = new FakePage();
  await page.start();
  assert.equal(page.rfbs.length, 1);
  assert.equal(page.socket.readyState, 0);
});

test("noVNC may neither resize the desktop nor stretch beyond the window", async () => {
  const page = new FakePage();
  await page.start();
  assert.equal(page.rfb.resizeSession, false);
  assert.equal(page.rfb.scaleViewport, true);
  assert.equal(page.rfb.viewOnly, true);
});

test("a picture is live when bytes of it have come, not when the handshake is over", async () => {
  const page = new FakePage();
  await page.start();
  page.socket.open();
  page.socket.bytes(82);
  assert.equal(page.display.view.state, "connecting");
  assert.equal(page.display.view.step, "picture");
  page.socket.bytes(0, 0);
  assert.equal(page.display.view.state, "live");
});

test("a stream that is not permitted although one may watch is asked about once, until there is a picture", async () => {
  const page = await steady();
  const refuse = async () => (page.socket.end(4403), page.display.permitted(), settle());
  await refuse();
  assert.equal(page.sockets.length, 2);
  await refuse();
  await page.clock.advance(60_000);
  assert.deepEqual([page.sockets.length, page.display.view.state], [2, "ended"]);
  page.display.restart(); // one has signed in again
  await settle();
  await page.goLive();
  await refuse();
  assert.equal(page.sockets.length, 4);
});

test("text frames never reach noVNC", async () => {
  const page = await steady();
  const before = page.rfb.frames.length;
  page.socket.text({ type: "pong", id: 1 });
  page.socket.text("not json");
  page.socket.text("null");
  page.socket.text({ type: "something new" });
  assert.equal(page.rfb.frames.length, before);
  page.socket.bytes(0, 1, 2);
  assert.equal(page.rfb.frames.length, before + 1);
});

test("a ping of the server is answered with its id", async () => {
  const page = await steady();
  page.socket.text({ type: "ping", id: "a1b2" });
  assert.deepEqual(JSON.parse(page.socket.sent.at(-1)), { type: "pong", id: "a1b2" });
});

test("the server decides the mode, and only a page that wants control sends input", async () => {
  const page = await steady();
  await page.tellControl("control");
  assert.equal(page.rfb.viewOnly, true, "nobody has pressed Take control here");
  await page.lease.take();
  assert.equal(page.rfb.viewOnly, false);
  await page.tellControl("observe");
  assert.equal(page.rfb.viewOnly, true);
  assert.equal(page.sockets.length, 1, "control moves in place");
});

for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 4401, 4413, 4502, 4503, 4504]) {
  test(`a close with ${code} is dialled again, although noVNC calls it clean`, async () => {
    const page = await steady();
    page.socket.end(code);
    assert.equal(page.display.view.state, "reconnecting");
    await page.clock.advance(300);
    assert.equal(page.sockets.length, 2);
    assert.notEqual(page.sockets[0]?.token, page.sockets[1]?.token);
  });
}

for (const [code, state] of /** @type {[number, string][]} */ ([
  [4400, "ended"],
  [4403, "ended"],
  [4404, "unavailable"],
  [4410, "ended"],
  [4511, "unavailable"],
])) {
  test(`a close with ${code} stops: ${state}`, async () => {
    const page = await steady();
    page.socket.end(code);
    await page.clock.advance(600_000);
    page.display.wake();
    await settle();
    assert.equal(page.display.view.state, state);
    assert.equal(page.sockets.length, 1);
  });
}

test("after any stop but one, a person may still press Reconnect", async () => {
  const page = await steady();
  page.socket.end(4511);
  page.display.restart();
  await settle();
  assert.equal(page.sockets.length, 2);
});

test("a hidden desktop is dialled again at the next change of control, and not before", async () => {
  const page = await steady();
  page.socket.end(4411);
  await page.clock.advance(600_000);
  assert.equal(page.display.view.state, "unavailable");
  assert.equal(page.sockets.length, 1);
  page.display.shown();
  await settle();
  assert.equal(page.sockets.length, 2);
});

test("a change of control wakes no desktop that stopped for another reason", async () => {
  const page = await steady();
  page.socket.end(4511);
  page.display.shown();
  await settle();
  assert.equal(page.sockets.length, 1);
});

test("too many streams: the next dial waits for seconds", async () => {
  const page = await steady();
  page.socket.end(4429);
  await page.clock.advance(7_000);
  assert.equal(page.sockets.length, 1);
  await page.clock.advance(1_000);
  assert.equal(page.sockets.length, 2);
});

test("the code of the closing message counts where the close itself has none", async () => {
  const page = await steady();
  page.socket.text({ type: "closing", code: 4403, reason: "" });
  page.socket.end(1006);
  assert.equal(page.display.view.state, "ended");
  assert.equal(page.display.view.why, 4403);
});

test("of the server's words only the name of the failed step is kept", async () => {
  const page = await steady();
  page.socket.text({ type: "closing", code: 4502, reason: "connect: [Errno 111] Connect call failed" });
  page.socket.end(4502);
  assert.equal(page.display.view.fault, "connect");
});

test("every dial follows a renewal that was answered, and uses its token", async () => {
  const page = new FakePage();
  await page.inControl();
  const dials = [];
  for (let i = 0; i < 3; i++) {
    const before = page.server.count(ACQUIRE);
    page.socket.end(1006);
    await page.clock.advance(16_000);
    assert.equal(page.server.count(ACQUIRE), before + 1);
    assert.equal(page.server.calls.at(-1)?.body.epoch, 5);
    assert.equal(page.socket.token, `t${page.server.tokens}`);
    dials.push(page.socket.token);
  }
  assert.equal(new Set(dials).size, 3);
  assert.equal(page.lease.epoch, 5);
});

test("where the renewal is refused, the dial is one to observe", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.end("forced");
  page.socket.end(1006);
  await page.clock.advance(300);
  assert.deepEqual(page.server.calls.slice(-2).map((call) => call.path), [ACQUIRE, SESSION]);
  await page.goLive();
  assert.equal(page.rfb.viewOnly, true);
  assert.equal(page.told("lost")[0].reason, "forced");
});

for (const [what, failing] of /** @type {[string, () => any][]} */ ([
  ["no network", noNetwork],
  ["503", () => refusal(503, "unavailable")],
  ["429", () => refusal(429, "slow_down")],
])) {
  test(`while the renewal meets ${what}, the page probes without limit and counts no dial`, async () => {
    const page = new FakePage();
    await page.inControl();
    await page.clock.advance(10_000);
    page.server.instead[ACQUIRE] = failing;
    page.socket.end(1006);
    const before = page.server.count(ACQUIRE);
    await page.clock.advance(280_000);
    const probes = page.server.count(ACQUIRE) - before;
    assert.ok(probes >= 280 / 15, `${probes} probes`);
    assert.equal(page.sockets.length, 1);
    assert.equal(page.display.view.state, "reconnecting");
    assert.equal(page.display.view.attempt, 1);
    assert.notEqual(page.display.view.offline, "");
    delete page.server.instead[ACQUIRE];
    await page.clock.advance(15_500);
    assert.equal(page.sockets.length, 2);
    assert.equal(page.socket.token, `t${page.server.tokens}`, "no cached token");
    assert.equal(page.lease.epoch, 5);
  });
}

for (const [status, state, why] of /** @type {[number, string, string | number][]} */ ([
  [401, "ended", "signed_out"],
  [403, "ended", 4403],
  [404, "unavailable", 4404],
])) {
  test(`${status} on the way stops the page`, async () => {
    const page = await steady();
    page.server.instead[SESSION] = () => refusal(status, "no");
    page.socket.end(1006);
    await page.clock.advance(600_000);
    assert.equal(page.display.view.state, state);
    assert.equal(page.display.view.why, why);
    assert.equal(page.sockets.length, 1);
  });
}

test("ten dials in a row, then it is a person's turn", async () => {
  const page = await steady();
  page.socket.end(1006);
  for (let dial = 1; dial <= 10; dial++) {
    assert.equal(page.display.view.attempt, dial);
    await page.clock.advance(15_000);
    assert.equal(page.sockets.length, dial + 1);
    assert.equal(page.display.view.attempt, dial);
    page.socket.end(1006);
  }
  await page.clock.advance(600_000);
  assert.equal(page.sockets.length, 11);
  assert.equal(page.display.view.state, "disconnected");
  page.display.restart();
  await settle();
  assert.equal(page.sockets.length, 12);
  assert.equal(page.display.view.attempt, 1);
});

test("after ten dials, being online or visible again starts ten more", async () => {
  const page = await steady();
  page.socket.end(1006);
  for (let i = 0; i < 20 && page.display.view.state !== "disconnected"; i++) {
    await page.clock.advance(15_000);
    page.socket.end(1006);
  }
  page.display.wake();
  await settle();
  assert.equal(page.display.view.attempt, 1);
});

test("waits double up to 15 s", async () => {
  const page = await steady();
  const waits = [];
  page.socket.end(1006);
  for (let i = 0; i < 9; i++) {
    const from = page.clock.time;
    const before = page.sockets.length;
    while (page.sockets.length === before) await page.clock.advance(50);
    waits.push(page.clock.time - from);
    page.socket.end(1006);
  }
  assert.deepEqual(waits, [250, 500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
});

test("a live picture makes the next wait short again, but the count stays for ten seconds", async () => {
  const page = await steady();
  for (let i = 0; i < 5; i++) {
    page.socket.end(1006);
    await page.clock.advance(15_000);
  }
  assert.equal(page.display.view.attempt, 5);
  await page.goLive();
  await page.clock.advance(9_000);
  page.socket.end(1006);
  assert.equal(page.display.view.attempt, 6);
  await page.clock.advance(300);
  assert.equal(page.sockets.length, 7, "the wait was short");
});

test("ten seconds of a live picture reset the count", async () => {
  const page = await steady();
  for (let i = 0; i < 9; i++) {
    page.socket.end(1006);
    await page.clock.advance(15_000);
  }
  await page.goLive();
  await page.clock.advance(10_000);
  assert.equal(page.display.view.attempt, 0);
  page.socket.end(1006);
  assert.equal(page.display.view.attempt, 1);
});

test("a picture that flaps does not go on for ever", async () => {
  const page = await steady();
  for (let i = 0; i < 30; i++) {
    page.socket.end(1006);
    await page.clock.advance(1_000);
    if (page.display.view.state !== "disconnected") await page.goLive();
  }
  assert.equal(page.sockets.length, 11);
  assert.equal(page.display.view.state, "disconnected");
});

test("a restarting server is dialled at once only after a live picture", async () => {
  const page = await steady();
  page.socket.end(4503);
  await page.clock.advance(250);
  assert.equal(page.sockets.length, 2);
  page.socket.end(4503);
  await page.clock.advance(250);
  assert.equal(page.sockets.length, 2, "not a second time in the same row");
});

test("Try now, online and visible do not wait for the timer", async () => {
  const page = await steady();
  page.random = () => 0.99;
  for (let i = 0; i < 6; i++) {
    page.socket.end(1006);
    page.display.wake();
    await settle();
  }
  assert.equal(page.sockets.length, 7);
  await page.clock.advance(20_000);
  assert.equal(page.sockets.length, 7, "the timer of the earlier wait is gone");
});

test("pressing twice while permission is asked for dials once", async () => {
  const page = await steady();
  const slow = late();
  page.server.instead[SESSION] = slow.answer;
  page.socket.end(1006);
  page.display.wake();
  page.display.restart();
  page.display.restart();
  await settle();
  slow.give(json(200, { session_url: "ws://desk/websockify#token=late" }));
  await settle();
  assert.equal(page.sockets.length, 2);
});

test("a silent stream is dead after 25 s, and its page pings every ten", async () => {
  const page = await steady();
  await page.clock.advance(10_000);
  const pings = page.socket.sent.map((text) => JSON.parse(text)).filter(({ type }) => type === "ping");
  assert.ok(pings.length >= 1);
  page.socket.text({ type: "pong", id: pings[0].id });
  await page.clock.advance(24_000);
  assert.equal(page.display.view.state, "live");
  await page.clock.advance(3_500);
  assert.notEqual(page.display.view.state, "live");
  assert.equal(page.socket.closedWith === 1000 || page.sockets.length > 1, true);
});

test("the answer to the newest ping tells the delay, until the stream ends", async () => {
  const page = await steady();
  const pings = () => page.socket.sent.map((text) => JSON.parse(text)).filter(({ type }) => type === "ping");
  page.display.wake();
  await page.clock.advance(40);
  page.socket.text({ type: "pong", id: pings()[0].id });
  assert.equal(page.display.view.delay, null);
  page.socket.text({ type: "pong", id: pings().at(-1).id });
  assert.equal(page.display.view.delay, 40);
  page.socket.end(1006);
  assert.equal(page.display.view.delay, null);
});

test("a dead stream that answers late cannot disturb the next one", async () => {
  const page = await steady();
  const old = page.socket;
  await page.clock.advance(40_000);
  assert.ok(page.sockets.length > 1);
  const now = page.display.view;
  old.text({ type: "hello", mode: "control", control: page.server.control() });
  old.bytes(0, 0);
  old.end(4403);
  assert.deepEqual(page.display.view, now);
});

test("silence is not judged while nobody can see the page", async () => {
  const page = await steady();
  page.visible = false;
  await page.clock.advance(600_000);
  assert.equal(page.display.view.state, "live");
  page.visible = true;
  page.display.wake();
  assert.equal(JSON.parse(page.socket.sent.at(-1)).type, "ping");
  await page.clock.advance(4_000);
  assert.equal(page.display.view.state, "live");
  await page.clock.advance(4_000);
  assert.notEqual(page.display.view.state, "live");
});

test("a laptop that slept asks before it judges, and the picture is as old as it is", async () => {
  const page = await steady();
  page.socket.text({ type: "pong", id: 1 });
  const last = page.clock.time;
  page.clock.sleep(3_600_000);
  await page.clock.advance(3_000);
  assert.equal(page.display.view.state, "live");
  assert.equal(JSON.parse(page.socket.sent.at(-1)).type, "ping");
  await page.clock.advance(7_500);
  assert.notEqual(page.display.view.state, "live");
  assert.deepEqual(page.told("frozen"), [{ at: last }]);
});

test("a stream that answers after a sleep has its full patience again", async () => {
  const page = await steady();
  page.clock.sleep(3_600_000);
  await page.clock.advance(3_000);
  page.socket.text({ type: "pong", id: 2 });
  await page.clock.advance(20_000);
  assert.equal(page.display.view.state, "live");
});

test("the last picture is kept, with the time of the last sign of life", async () => {
  const page = await steady();
  page.socket.text({ type: "pong", id: 1 });
  const last = page.clock.time;
  await page.clock.advance(3_000);
  page.socket.end(1006);
  assert.deepEqual(page.told("frozen"), [{ at: last }]);
});

test("a stream that was never live leaves the older picture alone", async () => {
  const page = await steady();
  page.socket.end(1006);
  await page.clock.advance(300);
  page.socket.end(1006);
  assert.equal(page.told("frozen").length, 1);
});

test("leaving the page closes with 1000 and dials no more", async () => {
  const page = await steady();
  page.display.stop();
  assert.equal(page.socket.closedWith, 1000);
  await page.clock.advance(600_000);
  assert.equal(page.sockets.length, 1);
  assert.equal(page.display.view.state, "ended");
});

test("noVNC giving up by itself is a broken stream, not an end", async () => {
  const page = await steady();
  page.rfb.dispatchEvent(new CustomEvent("disconnect", { detail: { clean: false } }));
  assert.equal(page.display.view.state, "reconnecting");
  await page.clock.advance(300);
  assert.equal(page.sockets.length, 2);
});

test("the desktop is dialled while noVNC loads, and what it says waits for noVNC", async () => {
  const page = new FakePage();
  const loads = page.loads;
  const loading = late();
  page.loads = () => loading.answer().then(loads);
  await page.start();
  page.socket.open();
  page.socket.text({ type: "hello", mode: "observe", control: page.server.control() });
  page.socket.bytes(82);
  assert.equal(page.rfbs.length, 0);
  assert.notEqual(page.lease.control, null, "our own messages wait for nothing");
  loading.give(null);
  await settle();
  assert.equal(page.sockets.length, 1);
  assert.deepEqual(page.rfb.frames.map((frame) => [...new Uint8Array(frame)]), [[82]]);
  assert.equal(page.display.view.step, "picture");
  page.socket.bytes(0, 0);
  assert.equal(page.display.view.state, "live");
  assert.equal(page.rfb.frames.length, 2);
});

test("a stream that ends while noVNC loads is dialled again, and not shown", async () => {
  const page = new FakePage();
  const loads = page.loads;
  const loading = late();
  page.loads = () => loading.answer().then(loads);
  await page.start();
  page.socket.end(4502);
  loading.give(null);
  await settle();
  assert.equal(page.rfbs.length, 0);
  await page.clock.advance(300);
  assert.equal(page.sockets.length, 2);
  assert.equal(page.rfbs.length, 1);
});

test("noVNC that cannot be loaded is tried again, and nothing more is dialled until it is there", async () => {
  const page = new FakePage();
  const loads = page.loads;
  page.loads = async () => {
    throw new TypeError("Failed to fetch dynamically imported module");
  };
  await page.start();
  await page.clock.advance(60_000);
  assert.equal(page.display.view.offline, "program");
  assert.equal(page.sockets.length, 1);
  assert.equal(page.socket.closedWith, 1000, "nobody would answer the desktop");
  page.loads = loads;
  await page.clock.advance(15_000);
  assert.equal(page.sockets.length, 2);
  assert.equal(page.rfbs.length, 1);
});

test("noVNC that hangs while loading is given up after 20 s, and with it the stream", async () => {
  const page = new FakePage();
  page.loads = () => new Promise(() => {});
  await page.start();
  page.socket.open();
  await page.clock.advance(20_000);
  assert.equal(page.display.view.offline, "program");
  assert.equal(page.socket.closedWith, 1000);
});

test("released means released: no input goes out while the server has not heard of it", async () => {
  const page = new FakePage();
  await page.inControl();
  assert.equal(page.display.driving, true);
  page.server.instead["/control/release"] = noNetwork;
  page.lease.release();
  assert.equal(page.display.driving, false);
  assert.equal(page.rfb.viewOnly, true);
  assert.equal(page.sockets.length, 1);
});

test("with renewals every 120 s the stream stays the same", async () => {
  const page = new FakePage();
  await page.inControl();
  for (let i = 0; i < 5; i++) {
    for (let j = 0; j < 15; j++) {
      page.socket.text({ type: "pong", id: j });
      await page.clock.advance(20_000);
    }
  }
  assert.equal(page.sockets.length, 1);
  assert.equal(page.display.driving, true);
});

test("keys of a combination go down in order and up in the other", async () => {
  const page = new FakePage();
  await page.inControl();
  press(page.display, [0xffe9, 0xff09]);
  assert.deepEqual(page.rfb.keys, [
    [0xffe9, true],
    [0xff09, true],
    [0xff09, false],
    [0xffe9, false],
  ]);
});

test("Cmd+V arrives as Ctrl+V", async () => {
  const page = new FakePage();
  await page.inControl();
  pressPaste(page.display, 0x76, true);
  assert.deepEqual(page.rfb.keys, [
    [0xffe9, false],
    [0xffe3, true],
    [0x76, undefined],
    [0xffe3, false],
  ]);
});

import assert from "node:assert/strict";
import test from "node:test";

import { FakePage, json, late, noNetwork, refusal, settle } from "./support.js";

const ACQUIRE = "/control/acquire";
const RELEASE = "/control/release";

test("taking control asks without an epoch and remembers the one it gets", async () => {
  const { lease, server, remembered } = new FakePage();
  await lease.take();
  assert.deepEqual(server.calls[0]?.body, { client_id: "tab-12345" });
  assert.equal(server.calls[0]?.headers["X-CSRFToken"], "c");
  assert.equal(lease.epoch, 5);
  assert.equal(remembered.at(-1), 5);
});

test("moving control here says so", async () => {
  const { lease, server } = new FakePage();
  await lease.take({ move: true });
  assert.equal(server.calls[0]?.body.move, true);
});

test("a take that somebody else won is refused with a code, and nothing is held", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  await page.lease.take();
  assert.deepEqual(page.told("refused"), [{ what: "take", status: 409, code: "held" }]);
  assert.equal(page.lease.wants, "none");
  assert.equal(page.lease.control?.controlled_by, "Otto");
});

test("control is renewed with its epoch every 120 s and never without need", async () => {
  const { lease, server, clock } = new FakePage();
  await lease.take();
  await clock.advance(119_000);
  assert.equal(server.count(ACQUIRE), 1);
  await clock.advance(601_000);
  assert.equal(server.count(ACQUIRE), 7);
  assert.equal(server.calls.at(-1)?.body.epoch, 5);
});

test("a laptop that slept renews on its first tick after waking", async () => {
  const { lease, server, clock } = new FakePage();
  await lease.take();
  clock.sleep(200_000);
  await clock.advance(0);
  assert.equal(server.count(ACQUIRE), 2);
});

test("a hidden page, whose timers run once a minute, never comes near the end of its lease", async () => {
  const { lease, server, clock } = new FakePage();
  /** @type {number[]} */
  const renewed = [];
  await lease.take();
  clock.grain = 60_000;
  for (let minute = 0; minute < 120; minute++) {
    const before = server.count(ACQUIRE);
    await clock.advance(60_000);
    if (server.count(ACQUIRE) > before) renewed.push(minute);
  }
  assert.ok(renewed.length >= 40, `${renewed.length} renewals`);
  assert.ok(renewed.every((minute, index) => minute - (renewed[index - 1] ?? 0) <= 3), `in minutes ${renewed}`);
});

test("a clock that was set back does not stop the renewals", async () => {
  const { lease, server, clock } = new FakePage();
  await lease.take();
  clock.setBack(3_600_000);
  await clock.advance(16_000);
  assert.equal(server.count(ACQUIRE), 2);
});

test("becoming visible renews, once for all who ask at the same time", async () => {
  const { lease, server } = new FakePage();
  await lease.take();
  lease.wake();
  lease.wake();
  await settle();
  assert.equal(server.count(ACQUIRE), 2);
});

for (const [what, failing] of /** @type {[string, () => any][]} */ ([
  ["no network", noNetwork],
  ["a 503", () => refusal(503, "unavailable")],
  ["a 429", () => refusal(429, "slow_down")],
  ["a proxy's HTML", () => ({ ok: true, status: 200, headers: new Headers(), json: async () => JSON.parse("<html>") })],
])) {
  test(`a renewal that meets ${what} is tried again and loses nothing`, async () => {
    const page = new FakePage();
    await page.lease.take();
    page.server.instead[ACQUIRE] = failing;
    await page.clock.advance(125_000);
    assert.equal(page.lease.failing, true);
    assert.equal(page.lease.epoch, 5);
    delete page.server.instead[ACQUIRE];
    await page.clock.advance(16_000);
    assert.equal(page.lease.failing, false);
    assert.deepEqual(page.told("lost"), []);
  });
}

test("failing renewals wait 15 s at most, without an end", async () => {
  const { lease, server, clock } = new FakePage();
  await lease.take();
  server.instead[ACQUIRE] = noNetwork;
  await clock.advance(600_000);
  const before = server.count(ACQUIRE);
  await clock.advance(60_000);
  assert.equal(server.count(ACQUIRE) - before, 4);
});

test("Retry-After is honoured", async () => {
  const { lease, server, clock } = new FakePage();
  await lease.take();
  server.instead[ACQUIRE] = () => json(503, { error: { code: "unavailable" } }, { "Retry-After": "10" });
  await clock.advance(120_000);
  const before = server.count(ACQUIRE);
  await clock.advance(9_000);
  assert.equal(server.count(ACQUIRE), before);
  await clock.advance(1_500);
  assert.equal(server.count(ACQUIRE), before + 1);
});

for (const reason of ["forced", "preempted", "moved", "released", "access_ended", "taken", "idle", "max_hold"]) {
  test(`a renewal refused with “${reason}” ends control and says why`, async () => {
    const page = new FakePage();
    await page.lease.take();
    page.server.end(reason);
    await page.clock.advance(121_000);
    assert.equal(page.lease.wants, "none");
    assert.equal(page.remembered.at(-1), null);
    const [loss] = page.told("lost");
    assert.equal(loss.reason, reason);
    assert.equal(loss.by, "Root User");
    assert.equal(loss.note, "maintenance");
    const before = page.server.count(ACQUIRE);
    await page.clock.advance(600_000);
    assert.equal(page.server.count(ACQUIRE), before, "an evicted page asks no more");
  });
}

test("an eviction told by the stream ends control once, with who and why", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.end("forced");
  await page.tellControl("observe", { reason: "forced", by: "Root User", note: "maintenance" });
  await page.tellControl("observe", { reason: "forced", by: "Root User", note: "maintenance" });
  assert.equal(page.told("lost").length, 1);
  assert.equal(page.told("lost")[0].note, "maintenance");
  assert.equal(page.lease.epoch, null);
});

test("a lease that lapsed is not lost: renewing goes on and resumes it under a new epoch", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.instead[ACQUIRE] = noNetwork;
  page.server.end("expired", { by: "", note: "" });
  await page.tellControl("observe", { reason: "expired" });
  assert.equal(page.lease.lapsed, true);
  assert.equal(page.lease.epoch, 5);
  page.server.instead[ACQUIRE] = () => {
    page.server.give("me");
    return json(200, { ...page.server.control(), session_url: "ws://x#token=y", renew_after_seconds: 120 });
  };
  await page.clock.advance(1_000);
  assert.equal(page.lease.epoch, 6);
  assert.equal(page.lease.lapsed, false);
  assert.deepEqual(page.told("lost"), []);
});

test("a lapsed lease that somebody else has held since is lost", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.lastEnd = null;
  page.server.give("Otto");
  await page.tellControl("observe", { reason: "expired" });
  assert.equal(page.told("lost")[0].reason, "taken");
});

test("a 200 that arrives after release was pressed is released at once with its epoch", async () => {
  const page = new FakePage();
  const slow = late();
  page.server.instead[ACQUIRE] = slow.answer;
  page.lease.take();
  await settle();
  page.lease.release();
  slow.give(page.server.acquire({}));
  await settle();
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", epoch: 5 });
  assert.equal(page.server.holder, null);
  assert.equal(page.lease.wants, "none");
});

test("a late 200 is released also where the stream has told of it before", async () => {
  const page = new FakePage();
  await page.start();
  await page.goLive();
  const slow = late();
  page.server.instead[ACQUIRE] = slow.answer;
  page.lease.take();
  await settle();
  const answer = page.server.acquire({});
  await page.tellControl("control");
  page.lease.release();
  await settle();
  assert.equal(page.server.holder, null);
  slow.give(answer);
  await settle();
  assert.equal(page.server.holder, null);
  assert.equal(page.rfb.viewOnly, true);
});

test("a renewal that answers after release leaves nothing held", async () => {
  const page = new FakePage();
  await page.inControl();
  const slow = late();
  page.server.instead[ACQUIRE] = slow.answer;
  await page.clock.advance(121_000);
  page.lease.release();
  page.server.give("me"); // the renewal resumed it under a new epoch meanwhile
  slow.give(json(200, { ...page.server.control(), session_url: "ws://x#token=y", renew_after_seconds: 120 }));
  await settle();
  assert.equal(page.server.holder, null);
  assert.equal(page.lease.epoch, null);
});

test("taking again waits for the release under way, which would end the new lease", async () => {
  const page = new FakePage();
  await page.lease.take();
  const slow = late();
  page.server.instead[RELEASE] = slow.answer;
  page.lease.release();
  page.lease.take();
  await settle();
  assert.equal(page.server.count(ACQUIRE), 1);
  delete page.server.instead[RELEASE];
  page.server.end("released");
  slow.give(json(200, page.server.control()));
  await settle();
  assert.equal(page.server.count(ACQUIRE), 2);
  assert.equal(page.lease.epoch, 6);
  assert.equal(page.server.holder, "me");
});

test("taking again while the first take has no answer ends in control, not in nothing", async () => {
  const page = new FakePage();
  const slow = late();
  page.server.instead[ACQUIRE] = slow.answer;
  page.lease.take();
  await settle();
  page.lease.release();
  page.lease.take();
  delete page.server.instead[ACQUIRE];
  slow.give(page.server.acquire({}));
  await settle();
  assert.equal(page.lease.wants, "held");
  assert.equal(page.server.holder, "me");
  assert.equal(page.lease.epoch, page.server.epoch);
});

test("a release that cannot reach the server is tried until it can", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.instead[RELEASE] = noNetwork;
  page.lease.release();
  assert.equal(page.rfb.viewOnly, true, "the page lets go at once");
  await page.clock.advance(60_000);
  assert.equal(page.server.holder, "me");
  delete page.server.instead[RELEASE];
  await page.clock.advance(16_000);
  assert.equal(page.server.holder, null);
});

test("a page that finds itself the holder without having asked releases that epoch, once", async () => {
  const page = new FakePage();
  await page.start();
  page.server.give("me");
  await page.goLive();
  await page.lease.refresh();
  assert.equal(page.server.count(RELEASE), 1);
  assert.equal(page.server.calls.find((call) => call.path === RELEASE)?.body.epoch, 5);
  assert.equal(page.server.holder, null);
  assert.equal(page.rfb.viewOnly, true);
});

test("a take whose answer got lost holds if the stream says so", async () => {
  const page = new FakePage();
  await page.start();
  await page.goLive();
  const slow = late();
  page.server.instead[ACQUIRE] = slow.answer;
  page.lease.take();
  await settle();
  page.server.give("me");
  await page.tellControl("control");
  await page.clock.advance(10_500); // the call times out
  page.server.instead[ACQUIRE] = noNetwork;
  slow.give(Promise.reject(new TypeError("aborted")));
  await settle();
  assert.equal(page.lease.wants, "held");
  assert.equal(page.lease.epoch, 5);
});

test("old news changes nothing", async () => {
  const page = new FakePage();
  const before = page.server.control();
  await page.inControl();
  page.lease.hear({ control: before, reason: "forced" });
  assert.equal(page.lease.epoch, 5);
  assert.deepEqual(page.told("lost"), []);
});

test("a reload resumes with the remembered epoch, by a renewal", async () => {
  const page = new FakePage({ epoch: 5 });
  page.server.give("me");
  await page.start();
  assert.deepEqual(page.server.calls.map(({ path, body }) => [path, body?.epoch]), [[ACQUIRE, 5]]);
  await page.goLive();
  assert.equal(page.rfb.viewOnly, false);
});

test("a reload after an eviction watches, and says who ended control", async () => {
  const page = new FakePage({ epoch: 5 });
  page.server.give("me");
  page.server.end("forced");
  await page.start();
  assert.equal(page.told("lost")[0].reason, "forced");
  assert.deepEqual(page.server.calls.map((call) => call.path), [ACQUIRE, "/session"]);
});

test("signed out: said once, no more renewals, and the epoch stays for after signing in", async () => {
  const page = new FakePage();
  await page.lease.take();
  page.server.instead[ACQUIRE] = () => refusal(401, "unauthorized");
  await page.clock.advance(600_000);
  assert.equal(page.told("signedout").length, 1);
  assert.equal(page.remembered.at(-1), 5);
});

test("force-release names the epoch that was meant, whoever has control by then, and a note", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  await page.lease.refresh();
  page.server.give("agent");
  await page.lease.refresh();
  await page.lease.force("maintenance", 5);
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", epoch: 5, force: true, note: "maintenance" });
});

test("closing the page releases nothing", async () => {
  const page = new FakePage();
  await page.inControl();
  page.display.stop();
  page.lease.stop();
  await page.clock.advance(600_000);
  assert.equal(page.server.count(RELEASE), 0);
  assert.equal(page.server.count(ACQUIRE), 1);
});

test("the server's clock counts, not the browser's", async () => {
  const page = new FakePage();
  page.server.control = ((original) => () => ({ ...original.call(page.server), server_time: "2026-03-01T13:00:00.000Z" }))(
    page.server.control,
  );
  await page.lease.refresh();
  assert.equal(new Date(page.lease.serverNow).toISOString(), "2026-03-01T13:00:00.000Z");
});

test("every GET says which tab asks", async () => {
  const { lease, server } = new FakePage();
  await lease.refresh();
  assert.equal(server.calls[0]?.headers["X-Client-Id"], "tab-12345");
});

/** A live page that has asked Otto for control. */
async function askedPage() {
  const page = new FakePage();
  page.server.give("Otto");
  await page.start();
  await page.goLive();
  await page.lease.ask("please");
  return page;
}

test("asking names the message; the request is this tab's and still open", async () => {
  const page = await askedPage();
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", message: "please" });
  assert.equal(page.lease.request?.message, "please");
  assert.equal(page.lease.wants, "none");
});

test("a request that cannot be made is refused in words and leaves nothing open", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  page.server.instead["/control/request"] = () => refusal(429, "asked_lately");
  await page.lease.ask("");
  assert.deepEqual(page.told("refused"), [{ what: "ask", status: 429, code: "asked_lately" }]);
  assert.equal(page.lease.request, undefined);
  page.server.give("me");
  await page.lease.refresh();
  assert.equal(page.server.holder, null, "it has not asked");
});

test("what it has asked for and is handed, it keeps, and renews at once to know how often", async () => {
  const page = await askedPage();
  page.server.give("me");
  await page.tellControl("control", { reason: "handed_over" });
  assert.equal(page.lease.wants, "held");
  assert.equal(page.lease.epoch, page.server.epoch);
  assert.equal(page.remembered.at(-1), page.server.epoch);
  assert.equal(page.server.calls.at(-1)?.body.epoch, page.server.epoch);
  assert.equal(page.server.count(RELEASE), 0);
  assert.equal(page.rfb.viewOnly, false);
  page.visible = false; // silence is not judged then
  await page.clock.advance(125_000);
  assert.equal(page.server.count(ACQUIRE), 2);
});

test("what is handed over before the request is answered is kept as well", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  await page.start();
  await page.goLive();
  const slow = late();
  page.server.instead["/control/request"] = slow.answer;
  page.lease.ask("");
  await settle();
  page.server.give("me");
  await page.tellControl("control", { reason: "handed_over" });
  slow.give(json(200, page.server.control()));
  await settle();
  assert.equal(page.lease.wants, "held");
  assert.equal(page.server.count(RELEASE), 0);
});

test("an open request from before a reload is having asked", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  page.server.ask({ yours: true, this_client: true });
  await page.start();
  await page.goLive();
  page.server.give("me");
  await page.tellControl("control", { reason: "handed_over" });
  assert.equal(page.lease.wants, "held");
  assert.equal(page.server.count(RELEASE), 0);
});

test("what another tab has asked for is not this one's", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  page.server.ask({ yours: true });
  await page.start();
  await page.goLive();
  assert.equal(page.lease.request, undefined);
  page.server.give("me");
  await page.tellControl("control", { reason: "handed_over" });
  assert.equal(page.server.holder, null);
});

for (const reason of ["declined", "unanswered"]) {
  test(`a request that ends as ${reason} is told once, with who keeps control`, async () => {
    const page = await askedPage();
    page.server.requests = [];
    await page.tellControl("observe", { reason, by: "Otto" });
    await page.tellControl("observe", { reason, by: "Otto" });
    assert.deepEqual(page.told("kept"), [{ by: "Otto", epoch: page.server.epoch, reason }]);
  });
}

test("a request that ends with the control it was for is not called declined", async () => {
  const page = await askedPage();
  page.server.end("released");
  page.server.requests = [];
  await page.tellControl("observe", { reason: "released" });
  assert.deepEqual(page.told("kept"), []);
  assert.equal(page.lease.request, undefined);
});

test("a withdrawn request is over for the page at once, and a grant that crosses it is let go of", async () => {
  const page = await askedPage();
  const slow = late();
  page.server.instead["/control/request/withdraw"] = slow.answer;
  page.lease.withdraw();
  assert.equal(page.lease.request, undefined);
  page.server.give("me");
  await page.tellControl("control", { reason: "handed_over" });
  assert.equal(page.server.holder, null);
  slow.give(json(200, page.server.control()));
  await settle();
  assert.equal(page.lease.wants, "none");
  assert.deepEqual(page.told("kept"), []);
});

test("a request that could not be withdrawn is still open", async () => {
  const page = await askedPage();
  page.server.instead["/control/request/withdraw"] = noNetwork;
  await page.lease.withdraw();
  assert.equal(page.lease.request?.message, "please");
  assert.equal(page.told("refused")[0].what, "withdraw");
});

test("what the server withdraws for the page is no answer of the holder's", async () => {
  const page = await askedPage();
  page.server.requests = [];
  await page.tellControl("observe", { reason: "withdrawn", by: "Anna" });
  assert.deepEqual(page.told("kept"), []);
});

test("who leaves asks no more", async () => {
  const page = await askedPage();
  page.lease.stop();
  await settle();
  assert.equal(page.server.calls.at(-1)?.path, "/control/request/withdraw");
  assert.equal(page.lease.request, undefined);
});

test("who leaves without having asked withdraws nothing", async () => {
  const page = new FakePage();
  await page.inControl();
  page.lease.stop();
  await settle();
  assert.equal(page.server.count("/control/request/withdraw"), 0);
});

test("older news of the same version does not bring a request back", async () => {
  const page = await askedPage();
  const before = page.server.control();
  page.clock.time += 1_000;
  page.server.requests = [];
  await page.tellControl("observe", { reason: "declined", by: "Otto" });
  page.lease.hear({ control: before });
  assert.equal(page.lease.request, undefined);
});

test("an answer names the request and the epoch; handing over is no loss without a reason", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.lastEnd = { reason: "handed_over", by: "Otto", note: null, at: "2026-03-01T12:00:00.000Z" };
  await page.lease.answer(7, true);
  const body = page.server.calls.find((call) => call.path === "/control/request/answer")?.body;
  assert.deepEqual(body, { client_id: "tab-12345", epoch: 5, request: 7, accept: true });
  assert.equal(page.told("lost")[0].reason, "handed_over");
  assert.equal(page.told("lost")[0].by, "Otto");
});

test("keeping control names its epoch", async () => {
  const page = new FakePage();
  await page.inControl();
  await page.lease.prolong();
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", epoch: 5 });
});

test("a refusal that tells of a loss is told as the loss alone", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.end("forced");
  page.server.instead["/control/keep"] = () => refusal(409, "forced", page.server.control());
  await page.lease.prolong();
  assert.deepEqual(page.told("refused"), []);
  assert.equal(page.told("lost")[0].reason, "forced");
});

test("closing says so with the force-release, opening has a call of its own", async () => {
  const page = new FakePage();
  page.server.give("Otto");
  await page.lease.refresh();
  await page.lease.force("repairs", 5, true);
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", epoch: 5, force: true, note: "repairs", close: true });
  await page.lease.open();
  assert.equal(page.server.calls.at(-1)?.path, "/control/open");
});

test("handing back names epoch, outcome and note, and is no loss, though the stream may tell of it first", async () => {
  const page = new FakePage();
  await page.inControl();
  page.server.instead[RELEASE] = () => {
    page.server.end("released");
    page.lease.hear({ control: page.server.control(), reason: "released" });
    return json(200, page.server.control());
  };
  await page.lease.handBack("done", "solved");
  assert.deepEqual(page.server.calls.at(-1)?.body, { client_id: "tab-12345", epoch: 5, outcome: "done", note: "solved" });
  assert.deepEqual(page.told("lost"), []);
  assert.deepEqual([page.lease.wants, page.lease.epoch], ["none", null]);
});

test("control that could not be handed back is still held, and renewed", async () => {
  const page = new FakePage();
  await page.inControl();
  const renewals = page.server.count(ACQUIRE);
  page.server.instead[RELEASE] = noNetwork;
  await page.lease.handBack("done", "");
  assert.deepEqual(page.told("refused").map(({ what }) => what), ["handback"]);
  await page.clock.advance(0);
  assert.equal(page.server.count(ACQUIRE), renewals + 1);
  assert.equal(page.lease.wants, "held");
});

test("who hands back a parked desktop in vain does not take control of it", async () => {
  const page = new FakePage();
  await page.lease.refresh();
  page.server.instead[RELEASE] = noNetwork;
  await page.lease.handBack("done", "");
  await page.clock.advance(300_000);
  assert.equal(page.server.count(ACQUIRE), 0);
});

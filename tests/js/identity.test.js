import assert from "node:assert/strict";
import { webcrypto } from "node:crypto";
import test from "node:test";

import { Identity } from "../../static/controlplane/identity.js";

/** One browser: a lock manager for all its tabs. */
class FakeLocks {
  /** @type {Set<string>} */
  held = new Set();

  /** @param {string} name @param {{signal: AbortSignal}} options @param {() => Promise<any>} callback */
  request(name, { signal }, callback) {
    if (!this.held.has(name)) {
      this.held.add(name);
      callback();
      return new Promise(() => {});
    }
    return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  }
}

class FakeStorage {
  /** @param {[string, string][]} [entries] */
  constructor(entries = []) {
    this.items = new Map(entries);
  }

  /** A duplicated tab starts with a copy. */
  copy() {
    return new FakeStorage([...this.items]);
  }

  /** @param {string} key */
  getItem(key) {
    return this.items.get(key) ?? null;
  }

  /** @param {string} key @param {string} value */
  setItem(key, value) {
    this.items.set(key, value);
  }
}

/** @param {any} storage @param {any} locks */
async function claim(storage, locks) {
  const identity = new Identity({ workspace: "desk-12", storage: () => storage, locks, crypto: /** @type {any} */ (webcrypto) });
  // AbortSignal.timeout alone does not keep Node alive.
  const alive = setTimeout(() => {}, 2_000);
  await identity.claim();
  clearTimeout(alive);
  return identity;
}

test("a new tab invents a client_id that the server accepts", async () => {
  const { clientId, epoch } = await claim(new FakeStorage(), new FakeLocks());
  assert.match(clientId, /^[A-Za-z0-9_-]{8,64}$/);
  assert.equal(epoch, null);
});

test("no two tabs invent the same", async () => {
  const ids = await Promise.all(Array.from({ length: 50 }, () => claim(new FakeStorage(), new FakeLocks())));
  assert.equal(new Set(ids.map(({ clientId }) => clientId)).size, 50);
});

test("a reload is the same tab, with its epoch", async () => {
  const storage = new FakeStorage();
  const before = await claim(storage, new FakeLocks());
  before.remember(7);
  const after = await claim(storage, new FakeLocks());
  assert.equal(after.clientId, before.clientId);
  assert.equal(after.epoch, 7);
});

test("a duplicated tab is somebody new, without the epoch, and stays so", async () => {
  const locks = new FakeLocks();
  const storage = new FakeStorage();
  const first = await claim(storage, locks);
  first.remember(7);
  const copied = storage.copy();
  const second = await claim(copied, locks);
  assert.notEqual(second.clientId, first.clientId);
  assert.equal(second.epoch, null);
  assert.equal((await claim(copied, new FakeLocks())).clientId, second.clientId);
});

test("without locks, as on plain http, a reload still resumes", async () => {
  const storage = new FakeStorage();
  const before = await claim(storage, undefined);
  before.remember(3);
  assert.equal((await claim(storage, undefined)).epoch, 3);
});

test("blocked or broken storage is no obstacle", async () => {
  const blocked = { getItem: () => assert.fail(), setItem: () => assert.fail() };
  assert.ok((await claim(blocked, undefined)).clientId);
  assert.ok((await claim(undefined, undefined)).clientId);
  assert.ok((await claim(new FakeStorage([["desktopctl:desk-12", "{"]]), undefined)).clientId);
});

import assert from "node:assert/strict";
import { readFile, readdir } from "node:fs/promises";
import test from "node:test";

const ROOT = new URL("../../", import.meta.url);
const page = await readFile(new URL("templates/controlplane/display.html", ROOT), "utf8");

/** The page's own scripts that `name` imports before it runs, and theirs. @param {string} name @param {Set<string>} [found] */
async function importsOf(name, found = new Set()) {
  const script = await readFile(new URL(`static/controlplane/${name}`, ROOT), "utf8");
  for (const [, next = ""] of script.matchAll(/^import [^;]*"\.\/(\w+\.js)";/gm)) {
    if (found.has(next)) continue;
    found.add(next);
    await importsOf(next, found);
  }
  return found;
}

/** @param {RegExp} pattern */
const named = (pattern) => [...page.matchAll(pattern)].map(([, name]) => name);

test("the page asks at once for every script that it waits for, and for no other", async () => {
  const asked = named(/<link rel="modulepreload" href="{% static 'controlplane\/(\w+\.js)' %}">/g);
  assert.deepEqual(asked.toSorted(), [...(await importsOf("main.js"))].sort());
});

test("until a desktop is shown, the page's own scripts have 60 KiB at most, as they lie in the tree", async () => {
  const names = ["main.js", ...(await importsOf("main.js"))];
  const sizes = await Promise.all(names.map((name) => readFile(new URL(`static/controlplane/${name}`, ROOT))));
  const total = sizes.reduce((sum, { byteLength }) => sum + byteLength, 0);
  assert.ok(total <= 60 * 1024, `${total} bytes`);
});

test("what a script exports is used by another, or by a test", async () => {
  const folders = ["static/controlplane/", "tests/js/"];
  const read = async (/** @type {string} */ folder) => {
    const names = (await readdir(new URL(folder, ROOT))).filter((name) => name.endsWith(".js"));
    return Promise.all(names.map((name) => readFile(new URL(folder + name, ROOT), "utf8")));
  };
  const scripts = (await Promise.all(folders.map(read))).flat();
  const exported = scripts.flatMap((script) => [...script.matchAll(/^export (?:async )?(?:class|const|function) (\w+)/gm)].map(([, name]) => name));
  assert.ok(exported.length > 50);
  const unused = exported.filter((name) => scripts.filter((script) => new RegExp(`\\b${name}\\b`).test(script)).length < 2);
  assert.deepEqual(unused, []);
});

import js from "@eslint/js";
import globals from "globals";

const rules = {
  curly: ["error", "multi-line"],
  eqeqeq: "error",
  "no-console": "error",
  "no-var": "error",
  "prefer-const": "error",
  complexity: ["error", 12],
  "max-depth": ["error", 3],
};

// Elements belong to ui.js, and to what tools.js opens (panels.js, typing.js, grip.js), which find them by elements.js; to
// embed.js before those are there, and to its host.js; and on the list's page to list.js. The rest of the browser comes in through main.js and its kind, and is handed to the
// others, which run in tests without one.
const HAS_ELEMENTS = ["elements", "embed", "grip", "host", "list", "panels", "typing", "ui"];
const FINDS_ELEMENTS = ["getElementById", "querySelector", "querySelectorAll", "createElement", "body"];
const KNOWS_THE_BROWSER = [...HAS_ELEMENTS, "look", "main", "pass", "signedin", "signin", "tools"];
const BROWSER = ["document", "window", "location", "navigator", "fetch", "localStorage", "sessionStorage", "setTimeout", "setInterval", "WebSocket", "EventSource"];

/** @param {string} name */
const script = (name) => `static/controlplane/${name}.js`;

export default [
  { ignores: ["node_modules/", "var/", ".venv/"] },
  js.configs.recommended,
  {
    files: ["static/controlplane/*.js", "bench/*.js"],
    languageOptions: { globals: globals.browser },
    rules,
  },
  {
    files: ["static/controlplane/*.js"],
    ignores: KNOWS_THE_BROWSER.map(script),
    rules: { "no-restricted-globals": ["error", ...BROWSER] },
  },
  {
    files: ["static/controlplane/*.js"],
    ignores: HAS_ELEMENTS.map(script),
    rules: {
      "no-restricted-properties": ["error", ...FINDS_ELEMENTS.map((property) => ({ object: "document", property }))],
    },
  },
  {
    files: ["tests/js/**/*.js", "eslint.config.js"],
    languageOptions: { globals: globals.node },
    rules,
  },
];

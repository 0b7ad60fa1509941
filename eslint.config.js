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

// Elements belong to ui.js, to panels.js, and on the list's page to list.js; the rest of the browser
// comes in through main.js and its kind, and is handed to the others, which run in tests without one.
const KNOWS_THE_BROWSER = ["embed", "list", "main", "panels", "pass", "signedin", "signin", "tools", "ui"];
const BROWSER = ["document", "window", "location", "navigator", "fetch", "localStorage", "sessionStorage", "setTimeout", "setInterval", "WebSocket", "EventSource"];

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
    ignores: KNOWS_THE_BROWSER.map((name) => `static/controlplane/${name}.js`),
    rules: { "no-restricted-globals": ["error", ...BROWSER] },
  },
  {
    files: ["tests/js/**/*.js", "eslint.config.js"],
    languageOptions: { globals: globals.node },
    rules,
  },
];

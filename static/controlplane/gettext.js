/**
 * Sentences in the reader's language. `/words.js` brings Django's catalogue, where there is one;
 * `manage.py makemessages -d djangojs` finds what is passed to these two.
 */

/** @param {string} words @param {Record<string, any>} values for each %(name)s */
export function gettext(words, values = {}) {
  return fill(catalogue()?.gettext(words) ?? words, values);
}

/** @param {string} one @param {string} many @param {number} count @param {Record<string, any>} values */
export function ngettext(one, many, count, values = { count }) {
  return fill(catalogue()?.ngettext(one, many, count) ?? (count === 1 ? one : many), values);
}

/** @returns {{gettext(words: string): string, ngettext(one: string, many: string, count: number): string} | undefined} */
function catalogue() {
  return /** @type {any} */ (globalThis).django;
}

/** @param {string} words @param {Record<string, any>} values */
function fill(words, values) {
  return words.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
}

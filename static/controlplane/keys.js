/**
 * From text and key names to X11 keysyms, for the soft keyboard: phones tell what the text has
 * become, not which keys were pressed. Pure.
 */

/** Keys that change no text. @type {Readonly<Record<string, number>>} */
export const NAMED = Object.freeze({
  Backspace: 0xff08,
  Tab: 0xff09,
  Enter: 0xff0d,
  Escape: 0xff1b,
  Home: 0xff50,
  ArrowLeft: 0xff51,
  ArrowUp: 0xff52,
  ArrowRight: 0xff53,
  ArrowDown: 0xff54,
  PageUp: 0xff55,
  PageDown: 0xff56,
  End: 0xff57,
  Insert: 0xff63,
  Delete: 0xffff,
});

/** @param {string} character @returns {number} Latin-1 is itself; Unicode has a plane of its own */
export function keysymOf(character) {
  if (character === "\n") return NAMED.Enter;
  if (character === "\t") return NAMED.Tab;
  const code = character.codePointAt(0) ?? 0;
  return code < 0x100 ? code : 0x0100_0000 + code;
}

/** The keys that type a text, and how many of its characters no key can: control characters. @param {string} text */
export function keysymsOf(text) {
  const characters = [...text.replace(/\r\n?/g, "\n")];
  const keys = characters.filter((each) => each === "\n" || each === "\t" || !/\p{C}/u.test(each));
  return { keysyms: keys.map(keysymOf), lost: characters.length - keys.length };
}

/** Whether every keyboard has these keys: with others a desktop may drop what a backspace is to erase. @param {string} text */
export function isPlain(text) {
  return /^[\x20-\x7e]*$/.test(text);
}

/** Backspaces from the end of `before`, then what is new. @param {string} before @param {string} after */
export function keysBetween(before, after) {
  const old = [...before];
  const new_ = [...after];
  let same = 0;
  while (same < old.length && old[same] === new_[same]) same++;
  const erased = Array(old.length - same).fill(NAMED.Backspace);
  return [...erased, ...new_.slice(same).map(keysymOf)];
}

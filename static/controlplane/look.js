/** How this browser shows pictures, as it was left. */

const KEY = "desktopctl.look";

/** @returns {string | null} JSON; null where nobody has chosen */
export function keptLook() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // forbidden
  }
}

/** @param {Look} look */
export function keepLook(look) {
  try {
    localStorage.setItem(KEY, JSON.stringify(look));
  } catch {
    // forbidden: it holds for this page alone
  }
}

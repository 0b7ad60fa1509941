/**
 * How this page reaches the server, and what its tab keeps: with the login's cookie, and in the tab's
 * own storage. A page that was opened by a control link has neither: embed.js replaces all of it.
 */

export const pass = {
  /** @type {typeof fetch} */
  fetch: (...request) => fetch(...request),
  csrf: () => /(?:^|; )csrftoken=([^;]+)/.exec(document.cookie)?.[1] ?? "",
  /** @type {() => Pick<Storage, "getItem" | "setItem">} */
  storage: () => sessionStorage,
  /** @type {LockManager | undefined} */
  locks: navigator.locks,
};

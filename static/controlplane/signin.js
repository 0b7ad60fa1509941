/** Signing in again, in a window beside the page, which keeps its picture and its identity. */

/** @param {string} login @param {string} signedIn the page that ends it */
export function signIn(login, signedIn) {
  /** @param {string} page where to go then */
  const loginFor = (page) => `${login}?next=${encodeURIComponent(page)}`;
  if (!window.open(loginFor(signedIn))) location.assign(loginFor(location.pathname));
}

/** @param {string} signedIn @returns {Promise<string | undefined>} whose session it is now, if there is one */
export async function whoIsIn(signedIn) {
  const answer = await fetch(signedIn, { redirect: "manual", cache: "no-store" });
  return /data-user="(.*?)"/.exec(await answer.text())?.[1];
}

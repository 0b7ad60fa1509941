import { gettext, ngettext } from "./gettext.js";
import { clock } from "./view.js";

/** What the list says of a desktop. Pure. The page that the server sends says the same. */

/** @param {Control} control @returns {string} */
export function holderOf({ controller, controlled_by, yours, closed }) {
  if (closed) return gettext("Closed by %(by)s: “%(note)s”", { by: closed.by ?? gettext("an administrator"), note: closed.note });
  if (controller === "none") return gettext("Nobody has control");
  if (yours) return gettext("You have control");
  const values = { name: controlled_by };
  return controller === "agent" ? gettext("An agent has control: %(name)s", values) : gettext("%(name)s has control", values);
}

/** @param {Control} control @returns {string} */
export function factsOf({ acquired_at, holder_connected, yours, requests, help, parked, agent }) {
  return [
    help && gettext("%(agent)s asks for you: “%(reason)s”", { agent: agent ?? gettext("An agent"), reason: help.reason }),
    parked && gettext("%(by)s’s control ended without handing back", { by: parked.by ?? gettext("Somebody") }),
    acquired_at && gettext("since %(time)s", { time: clock(acquired_at) }),
    holder_connected === false && !yours && gettext("not connected"),
    requests.length === 1 && gettext("%(by)s asks for control", { by: requests[0].by }),
    requests.length > 1 && gettext("%(count)s people ask for control", { count: requests.length }),
  ]
    .filter(Boolean)
    .join(" · ");
}

/** @param {number} viewers @param {Shown} display @returns {string} */
export function viewersOf(viewers, { width, height }) {
  const people = viewers === 0 ? gettext("Nobody is watching") : ngettext("%(count)s viewer", "%(count)s viewers", viewers);
  return width ? `${people} · ${width}×${height}` : people;
}

/** @type {Words} */
const BADGES = { ready: gettext("Ready"), unreachable: gettext("Cannot be reached"), not_configured: gettext("Not enabled") };

/** @param {Shown} display @returns {string} */
export function badgeOf({ status }) {
  return BADGES[status] ?? gettext("Not tried yet");
}

/** Which of them are announced, in one sentence or a few. @param {string[]} sentences @returns {string} */
export function announcement(sentences) {
  return sentences.length > 3 ? gettext("Control of %(count)s desktops has changed.", { count: sentences.length }) : sentences.join(" ");
}

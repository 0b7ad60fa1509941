import { clock } from "./view.js";

/** What the list says of a desktop. Pure. The page that the server sends says the same. */

/** @param {Control} control @returns {string} */
export function holderOf({ controller, controlled_by, yours, closed }) {
  if (closed) return `Closed by ${closed.by ?? "an administrator"}: “${closed.note}”`;
  if (controller === "none") return "Nobody has control";
  if (yours) return "You have control";
  return controller === "agent" ? `An agent has control: ${controlled_by}` : `${controlled_by} has control`;
}

/** @param {Control} control @returns {string} */
export function factsOf({ controller, acquired_at, holder_connected, yours, requests }) {
  if (controller === "none") return "";
  return [
    acquired_at && `since ${clock(acquired_at)}`,
    holder_connected === false && !yours && "not connected",
    requests.length === 1 && `${requests[0].by} asks for control`,
    requests.length > 1 && `${requests.length} people ask for control`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/** @param {number} viewers @param {Shown} display @returns {string} */
export function viewersOf(viewers, { width, height }) {
  const people = viewers === 0 ? "Nobody is watching" : viewers === 1 ? "1 viewer" : `${viewers} viewers`;
  return width ? `${people} · ${width}×${height}` : people;
}

/** @type {Words} */
const BADGES = { ready: "Ready", unreachable: "Cannot be reached", not_configured: "Not enabled" };

/** @param {Shown} display @returns {string} */
export function badgeOf({ status }) {
  return BADGES[status] ?? "Not tried yet";
}

/** Which of them are announced, in one sentence or a few. @param {string[]} sentences @returns {string} */
export function announcement(sentences) {
  return sentences.length > 3 ? `Control of ${sentences.length} desktops has changed.` : sentences.join(" ");
}

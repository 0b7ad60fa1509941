/** Shapes that the page's modules share. The wire's own shapes are those of the HTTP and stream contract. */

/** A lease as the server tells it to this caller. */
interface Control {
  controller: "none" | "user" | "agent";
  controlled_by: string | null;
  yours: boolean;
  this_client: boolean;
  epoch: number;
  version: number;
  acquired_at: string | null;
  expires_at: string | null;
  server_time: string;
  holder_connected: boolean | null;
  last_input_at: string | null;
  last_end: { reason: string; by: string | null; note: string | null; at: string } | null;
  can: { observe: boolean; control: boolean; force: boolean };
}

/** The answer to an acquire: the lease, and permission to open one stream. */
interface Grant extends Control {
  session_url: string;
  session_expires_at: string;
  renew_after_seconds: number;
}

/** An HTTP call's outcome. `status` 0: no usable answer. `code` is the server's or one of ours. */
interface Answer<T = any> {
  ok: boolean;
  status: number;
  code: string;
  data: T;
  current: Control | null;
  retryAfterMs: number;
}

/** How this page lost control. */
interface Loss {
  reason: string;
  by: string | null;
  note: string | null;
  at: string | null;
}

/** Timers, handed in so that tests own the time. */
interface Timers {
  set(callback: () => void, ms: number): any;
  clear(id: any): void;
}

type DisplayState = "connecting" | "live" | "reconnecting" | "disconnected" | "ended" | "unavailable";

/** What the display tells of itself. */
interface DisplayView {
  state: DisplayState;
  /** The dial under way or waited for, counted from 1; 0 after 10 s of a live picture. */
  attempt: number;
  /** Waiting before the next dial or probe. */
  waiting: boolean;
  /** Why there is no dial: the server gave no answer, or asked to wait. */
  offline: "" | "network" | "busy" | "program";
  /** Why it stopped or retries: a close code, or `signed_out`, `forbidden`, `missing`, `refused`. */
  why: number | string;
  /** The upstream step a close named, in the server's words (`connect`, `banner`, …). */
  fault: string;
  step: "session" | "socket" | "desktop" | "picture";
  mode: "observe" | "control";
  /** Why the gate is shut although the lease may be ours. */
  pause: string;
  live: boolean;
}

interface LeaseView {
  wants: "none" | "taking" | "held";
  epoch: number | null;
  control: Control | null;
  failing: boolean;
  lapsed: boolean;
}

/** All that decides what the page says and offers. */
interface PageView {
  name: string;
  display: DisplayView;
  lease: LeaseView;
  notice: Notice | null;
  /** The step of connecting is worth naming: it takes longer than 3 s. */
  slow: boolean;
  signedOut: boolean;
  /** Who has control could not be read lately. */
  stale: boolean;
  /** The server's time now, in ms. */
  serverNow: number;
}

type Notice = ({ kind: "lost" } & Loss) | { kind: "refused"; what: "take" | "force"; status: number; code: string };

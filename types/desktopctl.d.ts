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
  /** When control ends although it is renewed; `at` moves with input, which is told only near the end. */
  ends: { reason: "idle" | "max_hold"; at: string } | null;
  hidden: { at: string } | null;
  accepts_clipboard: boolean;
  closed: { by: string | null; note: string; at: string } | null;
  /** Which agent waits to have control, or has it. */
  agent: string | null;
  /** The agent asks for a person. */
  help: { by: string | null; reason: string; at: string } | null;
  /** A person's control ended without being handed back: agents wait. */
  parked: { by: string | null; reason: string; at: string } | null;
  handed_back: { epoch: number; outcome: string; by: string | null; note: string; at: string } | null;
  requests: Asked[];
  can: { observe: boolean; control: boolean; force: boolean };
}

/** Somebody's open request for control. */
interface Asked {
  id: number;
  by: string;
  message: string;
  yours: boolean;
  /** Asked from this tab, which will get it. */
  this_client: boolean;
  asked_at: string;
  /** When it is granted by itself, if the holder gives no input until then. */
  granted_at: string | null;
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
  by?: string | null;
  note?: string | null;
  at?: string | null;
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
  /** Why it stopped or retries: a close code, `signed_out` or `stopped`. */
  why: number | string;
  /** The upstream step a close named, in the server's words (`connect`, `banner`, …). */
  fault: string;
  step: "session" | "socket" | "desktop" | "picture";
  mode: "observe" | "control";
  /** How long the server took to answer the last ping, in ms; null before the first answer. */
  delay: number | null;
  /** Why the gate is shut although the lease may be ours. */
  pause: string;
}

interface LeaseView {
  wants: "none" | "taking" | "held";
  epoch: number | null;
  control: Control | null;
  failing: boolean;
  lapsed: boolean;
  request: Asked | undefined;
}

/** All that decides what the page says and offers. */
interface PageView {
  name: string;
  display: DisplayView;
  lease: LeaseView;
  notice: Notice | null;
  /** The notice as a sentence; "" where there is none. */
  told: string;
  /** Why there is no picture, as a sentence; "" where only the network is to blame. */
  cause: string;
  /** The step of connecting is worth naming: it takes longer than 3 s. */
  slow: boolean;
  signedOut: boolean;
  /** Opened by a control link, without an account: there is nothing to sign in to. */
  guest: boolean;
  /** Who has control could not be read lately. */
  stale: boolean;
  /** For how many ms nobody looked, where that explains what is told; else 0. */
  away: number;
  /** Since when the picture stands still, in ms of this machine's clock; 0 where it moves. */
  frozenAt: number;
  /** This machine's time, in ms. */
  now: number;
  /** The server's time now, in ms. */
  serverNow: number;
}

/** When the page was hidden last, or slept, and seen again; ms. */
interface Absence {
  hiddenAt: number;
  backAt: number;
}

/** What a page may ask of the server. */
type Asking = "take" | "force" | "open" | "hide" | "keep" | "ask" | "withdraw" | "answer" | "handback";

type Notice =
  | ({ kind: "lost" } & Loss)
  | { kind: "kept"; by: string | null; epoch: number; reason?: string | null }
  | { kind: "refused"; what: string; status: number; code: string };

/** What the parts of the page are built with: handed in, so that tests can replace it. */
interface Ambience {
  /** Wall-clock ms; it may jump, for laptops sleep. */
  now(): number;
  timers: Timers;
  /** A number in [0, 1). */
  random(): number;
}

interface ApiNeeds {
  fetch: typeof fetch;
  /** The address of the display's API, without a slash at its end. */
  base: string;
  clientId: string;
  /** The token to send, read at each call: signing in changes it. */
  csrf(): string;
  timers: Timers;
}

interface LeaseNeeds extends Ambience {
  api: Pick<import("../static/controlplane/api.js").Api, "change" | "observe" | "control">;
  /** Of the control this tab had before a reload. */
  epoch: number | null;
  /** Keeps the epoch over a reload. */
  remember(epoch: number | null): void;
}

interface DisplayNeeds extends Ambience {
  /** Permission for one dial. */
  session(): Promise<Answer<{ session_url: string }>>;
  /** Loads noVNC's class. */
  load(): Promise<RfbClass>;
  open(url: string, protocols: string[]): WebSocket;
  /** Where noVNC puts its canvas. */
  screen: Element;
  /** Whether somebody can see the page. */
  visible(): boolean;
}

/** How the picture is shown: fitted or in its actual size, dragged or not; JPEG quality and compression 0–9. */
interface Look {
  fit: boolean;
  drag: boolean;
  quality: number;
  compression: number;
}

interface ToolsNeeds {
  /** Of the desktop. */
  name: string;
  display: import("../static/controlplane/display.js").Display;
  lease: import("../static/controlplane/lease.js").Lease;
  timers: Timers;
  /** How many characters of text the server lets pass. */
  clipboardLimit: number;
  /** What the desktop copied last. */
  copied: string;
}

interface ClipboardNeeds {
  /** How many characters the server lets pass. */
  limit: number;
  /** Whether input reaches the desktop now. */
  isDriving(): boolean;
  /** Whether the desktop takes texts. */
  accepts(): boolean;
  send(text: string): void;
  /** One key after the other. */
  type(keysyms: number[]): void;
  /** To the browser's clipboard; tells whether it could. */
  write(text: string): Promise<boolean>;
  timers: Timers;
}

/** What is known of a display, as the list shows it. */
interface Shown {
  status: string;
  width: number | null;
  height: number | null;
}

/** One of the server's events, as tabs pass it on; `id` is where to resume. */
interface Told {
  type: string;
  data: any;
  id: string;
}

interface EventsNeeds extends Ambience {
  /** Of the lock and the channel that the tabs of one person share. */
  name: string;
  /** Missing on plain http. */
  locks: LockManager | undefined;
  channel(name: string): BroadcastChannel;
  /** @param query "" or where to resume */
  open(query: string): EventSource;
  /** The HTTP status that the server answers now; 0 for none. */
  probe(): Promise<number>;
  visible(): boolean;
}

interface IdentityNeeds {
  workspace: string;
  /** The tab's own storage; throws where the browser forbids it. */
  storage(): Pick<Storage, "getItem" | "setItem">;
  /** Missing on plain http. */
  locks: LockManager | undefined;
  crypto: Pick<Crypto, "getRandomValues">;
}

/** Why control changed, as a stream tells it. */
interface News {
  control: Control;
  reason?: string | null;
  by?: string | null;
  note?: string | null;
}

/** A button that is there; `why` it is disabled, or "". */
interface Offer {
  why: string;
}
type Offers = Record<string, Offer | null>;

/** What the elements are to show. */
interface Show {
  display: DisplayView;
  driving: boolean;
  mode: "observe" | "control";
  controller: Control["controller"];
  status: string;
  facts: string;
  delay: string;
  /** How old the picture is, where it is a still. */
  age: string;
  /** What the button says that hands back. */
  handing: string;
  /** What the bar over the strip says, with the seconds left; "" hides it. */
  asks: string;
  /** The same without seconds, to be announced. */
  told: string;
  offers: Offers;
  /** Whether this tab hides the desktop from all others. */
  hides: boolean;
}

type Handler = ((event: any) => void) | null;

interface ChannelEvents {
  open(): void;
  /** A message of ours: a JSON object. */
  text(message: any): void;
  /** Called after noVNC has had them. */
  bytes(data: ArrayBuffer): void;
  end(code: number, reason: string): void;
}

/** Sentences, or parts of them, by code. */
type Words = Record<string | number, string>;

// How things are called and written. Everything that somebody sent only ever becomes a text node.

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes, then children; texts become text nodes. */
export const el = (name, attributes, ...children) => filled(document.createElement(name), attributes, children);

/** The same inside of a drawing. */
export const svg = (name, attributes, ...children) => filled(document.createElementNS(SVG, name), attributes, children);

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) { if (value) node.addEventListener(key.slice(2), value); }
    // Set so, because the page allows no style in attributes.
    else if (key === "style") Object.assign(node.style, value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== "").map(plainly));
  return node;
}

/** Text with what turns the direction of others around shown as what it is: odd. */
const plainly = (child) => (typeof child === "string" ? child.replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd") : child);

/** Keeps a number and its unit on one line. */
const NB = "\u00a0";
export const two = (n) => String(n).padStart(2, "0");
export function clock(ms) { const t = new Date(ms); return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`; }
export const minute = (ms) => clock(ms).slice(0, 5);
export const day = (ms, isShort) => new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year: isShort ? undefined : "numeric" }).replaceAll(" ", NB);
/** A moment as short as it stays clear: 14:31 · yesterday 14:31 · 3 Nov 14:31. */
export function when(ms, now = Date.now(), at = minute) {
  const date = (t) => new Date(t).toDateString();
  if (date(ms) === date(now)) return at(ms);
  if (date(ms) === date(now - 86400000)) return `yesterday${NB}${at(ms)}`;
  const year = new Date(ms).getFullYear() === new Date(now).getFullYear() ? undefined : "numeric";
  return `${new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year }).replaceAll(" ", NB)}${NB}${at(ms)}`;
}
/** The same to the second. */
export const moment = (ms) => when(ms, Date.now(), clock);
/** From so many milliseconds on the newest event is old. */
const LATE_MS = 600000;
/** How long it takes until what is open is counted. */
export const COUNTED_LATE = 120000;
/** Says that nothing is known of the time since the newest event at `reaches`, where that is long. */
export const upTo = (reaches, now) => (reaches && now - reaches > LATE_MS ? el("p", { class: "notice plain late" }, `Events have come up to ${when(reaches, now)}. What has happened since is shown once it is told.`) : null);
/** Seconds as people say them: 41 s, 12 min, 2 h 05, 4 d 07 h. */
export function span(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 60) return `${Math.round(seconds)}${NB}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes}${NB}min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}${NB}h${NB}${two(minutes % 60)}`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 * 24 ? `${Math.floor(hours / 24)}${NB}d${NB}${two(hours % 24)}${NB}h` : `${Math.round(hours / 24)}${NB}days`;
}
/** At most three significant figures, and whole numbers whole. */
export function figure(n) {
  const rounded = Math.abs(n) >= 100 ? Math.round(n) : Number(n.toPrecision(3));
  return rounded.toLocaleString("en", { maximumFractionDigits: 6 }).replaceAll(",", "\u2009");
}
/** A part of a whole, to the hundredth of a percent. */
export function share(part, whole) {
  const percent = (100 * part) / whole;
  return `${percent > 0 && percent < 0.01 ? "< 0.01" : figure(percent < 1 ? Math.round(percent * 100) / 100 : percent)}${NB}%`;
}
const PREFIXES = ["", "k", "M", "G", "T", "P"];
function scaled(n, unit, base = 1000) {
  let power = 0;
  for (let rest = Math.abs(n); rest >= base && power < PREFIXES.length - 1; rest /= base) power += 1;
  return `${Number((n / base ** power).toPrecision(3))}${NB}${PREFIXES[power]}${unit}`;
}
/** In powers of 1024, as Kibana writes them. */
export const bytes = (n) => (n ? scaled(n, "B", 1024) : "–");
export const thousands = (n) => Number(n || 0).toLocaleString("en").replaceAll(",", "\u2009");
/** Milliseconds as people say them. */
const short = (ms) => (Math.abs(ms) < 1000 ? `${figure(ms)}${NB}ms` : Math.abs(ms) < 60000 ? `${figure(ms / 1000)}${NB}s` : span(ms / 1000));

/** A number of a unit. */
export function amount(n, unit, per) {
  const text = {
    seconds: () => (n > 0 && n < 10 ? `${figure(n)}${NB}s` : span(n)), milliseconds: () => short(n), bytes: () => scaled(n, "B", 1024), bitsPerSecond: () => scaled(n, "bit/s"),
    percent: () => `${figure(n)}${NB}%`, share: () => `${figure(n * 100)}${NB}%`,
  }[unit];
  const written = text ? text() : Math.abs(n) >= 1e6 ? scaled(n, "").trim() : figure(n);
  return per ? `${written}${unit === "number" || !unit ? NB : ""}/${per === "second" ? "s" : "min"}` : written;
}
export const count = (n, one, many) => `${thousands(n)}${NB}${n === 1 ? one : many}`;

const REASONS = {
  lastParticipantLeft: "last participant left", sessionClosedByServer: "closed by the application", networkDisconnect: "network lost",
  nodeCrashed: "node crashed", openviduServerStopped: "server stopped", mediaServerDisconnect: "media server lost", mediaServerReconnect: "media server restarted",
  automaticStop: "stopped by itself", recordingStoppedByServer: "recording stopped", disconnect: "left", forceDisconnectByUser: "removed by a moderator",
  forceDisconnectByServer: "removed by the application", unpublish: "stopped sending", unsubscribe: "stopped receiving",
  forceUnpublishByUser: "muted by a moderator", forceUnpublishByServer: "muted by the application", NULL: "no reason given",
};
const PROBLEMS = {
  abnormalEnd: "connection lost", iceFailed: "no media connection", mediaGap: "media interrupted",
  mediaLost: "media stopped early", noMedia: "media never came", lowNetworkQuality: "poor network", recordingFailed: "recording failed",
  highLoss: "packets lost", highJitter: "uneven media", highRoundTrip: "long delay", slowStart: "slow start",
};
/** A word out of a list, or the text itself: it may be called `constructor`. */
const look = (list, key) => (Object.hasOwn(list, key) ? list[key] : String(key));
const KINDS = { publisherSummary: "sent", subscriberSummary: "received", true: "yes", false: "no" };
/** How a value of a field is called. */
export const called = (field, value) => (field === "reason" ? why(value) : field === "problems" ? problem(value) : field === "elastic_type" ? look(KINDS, value) : String(value));
const FIELDS = {
  timestamp: "time", location: "place", elastic_type: "kind", uniqueSessionId: "session", sessionId: "session", connectionId: "connection", streamId: "stream",
  cluster_id: "cluster", media_node_id: "media node", "client.browser": "browser", "client.os": "system", geoPoints: "place near", "users.numberOfElements": "people", dayOfWeek: "day", hourOfDay: "hour", msSinceEndpointCreation: "after",
  nodeId: "node", nodeRole: "role", environmentId: "machine", ip: "IP address", oldStatus: "status before", newStatus: "status after", newValue: "network quality", issuer: "told by", operation: "step",
};
/** How a field is called. */
export const field = (name) => (Object.hasOwn(FIELDS, name) ? FIELDS[name] : plain(name));
const plain = (name) => name.replace(/[._]/g, " ").replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`);
export const why = (reason) => (reason ? look(REASONS, reason) : "");
export const problem = (code) => look(PROBLEMS, code);
const BAD = new Set(["networkDisconnect", "mediaServerDisconnect", "mediaServerReconnect", "nodeCrashed", "openviduServerStopped"]);
export const isBad = (reason) => BAD.has(reason);

/** The name that a client gave itself in its data; empty: none. */
function ownName(data) {
  try {
    const parsed = JSON.parse(data.split("%/%")[0]);
    for (const key of ["clientData", "name", "userName", "nickname", "user"]) if (typeof parsed[key] === "string" && parsed[key]) return parsed[key];
  } catch { /* free text */ }
  return data.length < 60 && !data.startsWith("{") ? data : "";
}

/** What to call whoever is behind a connection. */
export const name = (connection) => ownName(connection.clientData || "") || (connection.platform === "IPCAM" ? "IP camera" : connection.user || connection.connectionId);

/** The same of `who`: the user, and behind a blank what its client said about itself. */
export function person(who) {
  const [, user, data] = /^(\S*) ?(.*)$/s.exec(who);
  return ownName(data) || user;
}

/** Browser, system and place, as far as they are known. */
export function where(connection) {
  const client = connection.client || {};
  const browser = [client.browser, client.version].filter(Boolean).join(NB);
  const device = client.device === "ipcam" ? "camera" : "";
  const place = connection.location && connection.location !== "unknown" ? connection.location : "";
  return [browser === "IPCAM" ? "" : browser, client.os, device, place].filter(Boolean).join(" · ");
}

/** Messages often tell a cause in every layer; each part is told once. */
export const once = (text) => [...new Set(String(text).split(": "))].join(": ");

/** Text as a file. */
export function download(file, kind, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type: kind })), download: file });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Rows of cells as a table for spreadsheets. */
export function csv(rows) {
  // A cell that begins like a formula would be one in a spreadsheet.
  const cell = (value) => `"${String(value ?? "").replace(/^([=+\-@\t\r])(?![\d.]+( -?[\d.]+)?$)/, "'$1").replaceAll('"', '""')}"`;
  return rows.map((row) => row.map(cell).join(",")).join("\r\n");
}

// How things are called and written. Everything that somebody sent only ever becomes a text node.

/** An element: attributes, then children; texts become text nodes. */
export function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false && child !== ""));
  return node;
}

/** Keeps a number and its unit on one line. */
const NB = "\u00a0";
export const two = (n) => String(n).padStart(2, "0");
export function clock(ms) { const t = new Date(ms); return `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`; }
export const minute = (ms) => clock(ms).slice(0, 5);
export const day = (ms) => new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" }).replaceAll(" ", NB);
/** A moment as short as it stays clear: 14:31 · yesterday 14:31 · 3 Nov 14:31. */
export function when(ms, now = Date.now()) {
  const date = (t) => new Date(t).toDateString();
  if (date(ms) === date(now)) return minute(ms);
  if (date(ms) === date(now - 86400000)) return `yesterday${NB}${minute(ms)}`;
  const year = new Date(ms).getFullYear() === new Date(now).getFullYear() ? undefined : "numeric";
  return `${new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short", year }).replaceAll(" ", NB)}${NB}${minute(ms)}`;
}
/** Seconds as people say them: 41 s, 12 min, 2 h 05. */
export function span(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "–";
  if (seconds < 60) return `${Math.round(seconds)}${NB}s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes}${NB}min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)}${NB}h${NB}${two(minutes % 60)}`;
  return `${Math.round(minutes / 1440)}${NB}days`;
}
export function bytes(n) {
  if (!n) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = Math.min(4, Math.floor(Math.log10(n) / 3));
  return `${Number((n / 1000 ** power).toPrecision(3))}${NB}${units[power]}`;
}
export const thousands = (n) => Number(n || 0).toLocaleString("en").replaceAll(",", "\u2009");
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
  mediaLost: "media stopped early", lowNetworkQuality: "poor network", recordingFailed: "recording failed",
};
/** A word out of a list, or the text itself: it may be called `constructor`. */
const look = (list, key) => (Object.hasOwn(list, key) ? list[key] : String(key));
export const why = (reason) => (reason ? look(REASONS, reason) : "");
export const problem = (code) => look(PROBLEMS, code);
const BAD = new Set(["networkDisconnect", "mediaServerDisconnect", "mediaServerReconnect", "nodeCrashed", "openviduServerStopped"]);
export const isBad = (reason) => BAD.has(reason);

/** What to call whoever is behind a connection. */
export function name(connection) {
  const data = connection.clientData || "";
  try {
    const parsed = JSON.parse(data.split("%/%")[0]);
    for (const key of ["clientData", "name", "userName", "nickname", "user"]) if (typeof parsed[key] === "string" && parsed[key]) return parsed[key];
  } catch { /* free text */ }
  if (data && data.length < 60 && !data.startsWith("{")) return data;
  if (connection.platform === "IPCAM") return "IP camera";
  return connection.user || connection.connectionId;
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

export function table(heads, rows, empty) {
  if (!rows.length) return el("p", { class: "empty" }, empty);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {},
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", typeof cell === "string" ? { title: cell } : {}, cell)))))));
}

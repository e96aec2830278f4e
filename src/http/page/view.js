// What is looked at: time, filters and how often it is asked for anew. All of it stands in the address, so that a link shows the same.

const UNITS = { m: 60000, h: 3600000, d: 86400000 };
export const PRESETS = [["15m", "15 minutes"], ["1h", "hour"], ["6h", "6 hours"], ["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["365d", "year"]];
/** Seconds between two askings; 0: never. */
export const EVERY = [0, 10, 30, 60, 300];
const RANGE = "24h";
/** As far as one can look. */
export const LONGEST = 3660 * 86400000;

/** Reads the part of the address behind `#`. `path`: its parts, decoded. */
export function read(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?");
  const parameters = new URLSearchParams(query || "");
  const filters = parameters.getAll("filter").map((text) => ({ field: text.slice(0, text.indexOf(":")), value: text.slice(text.indexOf(":") + 1) })).filter((filter) => filter.field);
  const every = Number(parameters.get("every"));
  const times = [Number(parameters.get("from")), Number(parameters.get("to"))];
  const isFixed = times[0] > 0 && times[1] > times[0];
  const asked = parameters.get("last");
  const isSpan = /^\d{1,5}[mhd]$/.test(asked) && length(asked) > 0 && length(asked) <= LONGEST;
  const last = isSpan ? asked : RANGE;
  return { path: path.split("/").map(safe), q: parameters.get("q") || "", filters, every: EVERY.includes(every) ? every : 0, last: isFixed ? null : last, from: isFixed ? times[0] : null, to: isFixed ? times[1] : null, looks: looks(parameters) };
}

/** How panels and tables are looked at, by their names: `isTable`, and `sorted` by which column. */
function looks(parameters) {
  const all = Object.create(null);
  for (const name of parameters.getAll("table")) look(all, name).isTable = true;
  for (const text of parameters.getAll("sort")) {
    const [, name, i, way] = /^([^:]+):(\d{1,2}):(up|down)$/.exec(text) || [];
    if (name) look(all, name).sorted = { i: Number(i), isRising: way === "up" };
  }
  return all;
}

/** How one of them is looked at. */
export const look = (looks, name) => (looks[name] ||= {});

function safe(text) {
  try { return decodeURIComponent(text); } catch { return text; }
}

/** The address of a view, of which only what differs from the usual is written. */
export function address(view) {
  const parameters = new URLSearchParams();
  if (view.q) parameters.set("q", view.q);
  if (view.from) { parameters.set("from", view.from); parameters.set("to", view.to); } else if (view.last !== RANGE) parameters.set("last", view.last);
  for (const { field, value } of view.filters) parameters.append("filter", `${field}:${value}`);
  if (view.every) parameters.set("every", view.every);
  for (const [name, { isTable, sorted }] of Object.entries(view.looks || {})) {
    if (isTable) parameters.append("table", name);
    if (sorted) parameters.append("sort", `${name}:${sorted.i}:${sorted.isRising ? "up" : "down"}`);
  }
  const query = String(parameters);
  return `#/${view.path.map(encodeURIComponent).join("/")}${query ? `?${query}` : ""}`;
}

/** Milliseconds of a preset. */
export const length = (last) => Number(last.slice(0, -1)) * UNITS[last.at(-1)];

/** From when to when, milliseconds since 1970. */
export function times(view, now = Date.now()) {
  return view.from ? [view.from, view.to] : [now - length(view.last), now];
}

/** Whose clock days begin by. */
export function zone() {
  const name = Intl.DateTimeFormat().resolvedOptions().timeZone;
  return !name || name === "Etc/Unknown" ? "UTC" : name;
}

/** The parameters of a request for what `view` shows. */
export function query(view, [from, to], more = []) {
  const parameters = new URLSearchParams({ from: Math.round(from), to: Math.round(to), zone: zone() });
  for (const { field, value } of [...view.filters, ...more]) parameters.append("filter", `${field}:${value}`);
  return String(parameters);
}

export const has = (view, field, value) => view.filters.some((filter) => filter.field === field && filter.value === value);

/** With these filters too, or without them where all are there already. */
export function toggled(view, chosen) {
  const isIn = (filters, { field, value }) => filters.some((one) => one.field === field && one.value === value);
  const missing = chosen.filter((filter) => !isIn(view.filters, filter));
  return { ...view, filters: missing.length ? [...view.filters, ...missing] : view.filters.filter((filter) => !isIn(chosen, filter)) };
}

/** Asks for JSON. Fails with `status`, and `hint`: what to do. */
export async function ask(path, signal) {
  const response = await fetch(path, { signal });
  const text = await response.text();
  let body;
  try { body = JSON.parse(text); } catch { body = { error: `status ${response.status}` }; }
  if (!response.ok) throw Object.assign(new Error(body.error || `status ${response.status}`), { hint: body.hint, status: response.status });
  return { body, text };
}

/** The store, as a failure tells of it: `away` or `refuses`; null: it is no matter of the store. */
export function store(error) {
  return /^the index does not answer/.test(error.message) ? "away" : /^the index refuses/.test(error.message) ? "refuses" : null;
}

/** What to say of a failure where there is little room. */
export function brief(error) {
  return { away: "The store does not answer.", refuses: "The store does not let callscope read." }[store(error)] || failure(error);
}

/** What to say of a failure. */
export function failure(error) {
  const sentence = (text) => (text ? `${text[0].toUpperCase()}${text.slice(1)}.` : "");
  return error instanceof TypeError ? "callscope does not answer." : `${sentence(error.message)} ${sentence(error.hint)}`.trim();
}

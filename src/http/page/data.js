// What the answer of a panel says: as words, as rows, as series.

import { amount, called, day, field, two, moment, when } from "./text.js";

/** What a part of a split is called. */
export function keyText(split, key, step) {
  if (split.kind === "time") return split.isDay ? day(key) : when(key);
  if (split.kind === "classes") return classText(split, key);
  if (split.kind === "steps") return stepText(split.field, key);
  if (split.kind === "tiles") return `${tile(key).map((degrees) => degrees.toFixed(1)).join(", ")}`;
  return split.field ? called(split.field.field, key) : String(key);
}

const DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
function stepText({ field, unit }, key) {
  if (field === "hourOfDay") return `${two(key)}:00`;
  return (field === "dayOfWeek" && DAYS[key - 1]) || amount(key, unit);
}

function classText(split, key) {
  const place = key === null ? -1 : split.at.indexOf(key);
  const [from, to] = [split.at[place], split.at[place + 1]];
  const write = (n) => amount(n, split.field.unit);
  if (from === undefined) return `below ${write(to)}`;
  if (to === undefined) return `${write(from)} or more`;
  if (split.field.unit === "number") return to - from === 1 ? write(from) : `${from}–${to - 1}`;
  const [low, high] = [write(from).split("\u00a0"), write(to).split("\u00a0")];
  return low[1] === high[1] ? `${low[0]}–${high.join("\u00a0")}` : `${low.join("\u00a0")} – ${high.join("\u00a0")}`;
}

/** Latitude and longitude of the middle of a tile. */
export function tile([zoom, x, y]) {
  const tiles = 2 ** zoom;
  return [(Math.atan(Math.sinh(Math.PI * (1 - (2 * (y + 0.5)) / tiles))) * 180) / Math.PI, ((x + 0.5) / tiles) * 360 - 180];
}

const GOOD = new Set(["healthy", "connected", "ready", "running"]);
const BAD = new Set(["problems", "failed", "crashed", "terminated"]);
/** The colour of a part: what it means, or its place. */
export function colorOf(split, key, place) {
  // Levels, from bad to good.
  if (split.kind === "values" && split.field.field === "networkQuality") return `level${Math.max(0, Math.min(5, key))}`;
  if (split.field?.field === "health" && !GOOD.has(key) && !BAD.has(key)) return "c7";
  const isJudged = split.kind === "cases" || ["health", "status", "finalStatus", "newStatus"].includes(split.field?.field);
  return isJudged && GOOD.has(key) ? "good" : isJudged && BAD.has(key) ? "bad" : paint(place);
}

/** Where the name of a part leads: a session is opened, those of a name are looked for, all else is chosen. */
function lead(split, key) {
  if (split.opens) return key === split.missing ? {} : { [split.opens]: key };
  return { filter: filterOf(split, key) };
}

/** One of eight colours, and of those beyond once more, broken. */
const paint = (place) => `c${place % 8}${place >= 8 ? " again" : ""}`;

/** By what a part can be chosen, as the API takes it: filters; null: it cannot. */
export function filterOf(split, key) {
  if (split.kind === "cases") return split.filters[key] ?? null;
  const value = {
    values: () => (key === split.missing ? null : String(key)),
    steps: () => `${key}..${key + split.every}`,
    classes: () => `${key ?? ""}..${split.at[split.at.indexOf(key) + 1] ?? ""}`,
    tiles: () => key.join("/"),
  }[split.kind]?.() ?? null;
  return value === null ? null : [{ field: split.field.field, value }];
}

/** What a filter is called; `splits`: of all panels, one of which it is from. */
export function filterText(splits, { field, value }) {
  const from = (kind) => splits.find((split) => split.kind === kind && split.field.field === field);
  const [, begin, end] = /^(-?[\d.]*)\.\.(-?[\d.]*)$/.exec(value) || [];
  if (begin !== undefined && from("steps")?.every === end - begin) return keyText(from("steps"), Number(begin));
  if (begin !== undefined && from("classes")) return classText({ ...from("classes"), at: [begin, end].filter(Boolean).map(Number) }, begin ? Number(begin) : null);
  return from("tiles") ? keyText(from("tiles"), value.split("/").map(Number)) : called(field, value);
}

/** A value in words. */
export function valueText(metric, value) {
  if (value === null || value === undefined) return "–";
  if (metric.kind === "time") return when(value);
  if (Array.isArray(value)) return value.map((one) => called(metric.field, one)).join(", ");
  if (typeof value === "number") return amount(value, metric.unit, metric.per);
  return typeof value === "object" ? JSON.stringify(value) : called(metric.field, value);
}

/**
 * An answer as a table: heads, and rows of cells. A cell has what is shown, what it is, and where it leads: `filter`, `session`, or `search`.
 */
export function table(panel, answer) {
  if (panel.form === "list") {
    const heads = panel.columns.map((column) => ({ label: field(column.field), isNumber: column.kind === "number" }));
    const cell = (column, value) => {
      // Many things happen within a minute.
      const text = column.kind === "time" && Number.isFinite(value) ? moment(value) : valueText(column, value);
      const isPlain = column.kind === "text" && typeof value === "string" && value !== "";
      return { text: value === null ? "" : text, raw: column.kind === "time" ? iso(value) : value, sort: value, session: column.field === "uniqueSessionId" ? value : null, filter: isPlain && column.field !== "uniqueSessionId" ? [{ field: column.field, value }] : null };
    };
    return { heads, rows: answer.parts.map((part) => part.values.map((value, i) => cell(panel.columns[i], value))) };
  }
  const heads = [...panel.by.map((split) => ({ label: split.label || (split.kind === "time" ? (split.isDay ? "Day" : "Time") : "Place"), isNumber: split.kind === "steps" })),
    ...panel.show.map((metric) => ({ label: metric.label, isNumber: metric.kind === "number" }))];
  // Of days the last one is looked for first.
  const parts = panel.by[0]?.isDay ? answer.parts.toReversed() : answer.parts;
  const rows = parts.map((part) => [
    ...part.keys.map((key, i) => ({
      text: keyText(panel.by[i], key), raw: panel.by[i].kind === "time" ? iso(key) : Array.isArray(key) ? tile(key).join(" ") : key, sort: key,
      ...lead(panel.by[i], key),
    })),
    ...part.values.map((value, i) => ({ text: valueText(panel.show[i], value), raw: panel.show[i].kind === "time" ? iso(value) : Array.isArray(value) ? value.join(" ") : value, sort: value, filter: said(panel.show[i], value) })),
  ]);
  return { heads, rows };
}

/** By what a value can be chosen that documents say; null: it is reckoned, or nothing to choose by. */
const said = ({ kind, field }, value) => {
  const values = (Array.isArray(value) ? value : [value]).filter((one) => typeof one === "string" && one);
  return kind === "text" && field && values.length ? values.map((one) => ({ field, value: one })) : null;
};

const iso = (ms) => (typeof ms === "number" ? new Date(ms).toISOString() : "");

/** An answer as series over its last split: of each value, and of each part of the first split where there are two. */
export function series(panel, answer) {
  const over = panel.by.length - 1;
  const all = new Map();
  for (const part of answer.parts) {
    const outer = over > 0 ? part.keys[0] : null;
    part.values.forEach((value, i) => {
      const id = JSON.stringify([outer, i]);
      if (!all.has(id)) all.set(id, { outer, label: labelOf(panel, outer, i), metric: panel.show[i], filter: over > 0 ? filterOf(panel.by[0], outer) : null, isRight: panel.show[i].right, points: [] });
      if (typeof value === "number") all.get(id).points.push([part.keys[over], value]);
    });
  }
  const shown = [...all.values()].filter((one) => one.points.length);
  if (panel.by.length > 1 && panel.by[0].field?.kind === "number") shown.sort((a, b) => a.outer - b.outer);
  return shown.map((one, i) => ({ ...one, color: one.outer === null ? (one.metric.isBad ? "bad" : paint(i)) : colorOf(panel.by[0], one.outer, i) }));
}

function labelOf(panel, outer, i) {
  if (panel.by.length < 2) return panel.show[i].label;
  const name = keyText(panel.by[0], outer);
  return panel.show.length > 1 ? `${name} · ${panel.show[i].label.toLowerCase()}` : name;
}

/** Forms in which 0 is something to show. */
const WITH_ZERO = new Set(["numbers", "table", "line", "stairs"]);
/** Whether there is nothing to show. */
export function isEmpty(panel, answer) {
  return !answer.documents || !answer.parts.some((part) => part.values.some((value) => value !== null && (value !== 0 || WITH_ZERO.has(panel.form))));
}

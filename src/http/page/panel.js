// One panel: its frame, what it shows, its table twin, its files.

import { el, field, thousands, when } from "./text.js";
import { ask, brief, failure, look, query } from "./view.js";
import { isEmpty, table } from "./data.js";
import { chart } from "./chart.js";
import { bars, classes, donut, heatmap, map, numbers, treemap } from "./shapes.js";
import { grid, saveCsv, saveJson } from "./table.js";

/** Of the frame: title, question, paddings, and a legend of one line. */
const FRAME = { title: 76, legend: 26 };

/**
 * A panel. `scene`: `choose(filter)` and `zoom(from, to)` or null, `marks`, `more`: filters besides those of the view, `looks`: how panels are
 * looked at, `note()`, which is called when that has changed, and perhaps `called(field, value)`: what to call an id. Its
 * `load(view, times, signal)` asks for what it shows and shows it, or gives why it cannot; `hush()` leaves that to somebody else; `told()`
 * is the last answer, or null; `kept` is how it is looked at.
 */
export function panel(description, rows, scene) {
  const body = el("div", { class: "body" }, el("div", { class: "skeleton" }));
  const note = el("small", { class: "note" });
  let known = null;
  // How a table is sorted and how far it is unfolded stay as they are when values come anew; so do focus and what is scrolled.
  const kept = look(scene.looks, description.id);
  let filters = [];
  const draw = () => {
    if (!known) return;
    const scroll = body.querySelector(".scroll")?.scrollTop;
    const focused = body.contains(document.activeElement) ? focusable(body).indexOf(document.activeElement) : -1;
    body.replaceChildren(...content(description, known, { ...scene, kept, filters, from: known.from, to: known.to, height: rows * 20 - FRAME.title }));
    if (scroll && body.querySelector(".scroll")) body.querySelector(".scroll").scrollTop = scroll;
    if (focused >= 0) focusable(body)[focused]?.focus({ preventScroll: true });
  };
  const twin = el("button", { type: "button", "aria-pressed": String(Boolean(kept.isTable)), title: "Show the values as a table", onclick: () => {
    kept.isTable = !kept.isTable;
    twin.setAttribute("aria-pressed", String(kept.isTable));
    draw();
    scene.note();
  } }, "Table");
  const save = (kind) => () => {
    if (!known) return;
    if (kind === "CSV") saveCsv(description.id, table(description, known));
    else saveJson(description.id, known);
  };
  const hasTwin = description.form !== "table" && description.form !== "list";
  const tools = el("div", { class: "tools" }, hasTwin ? twin : null, ["CSV", "JSON"].map((kind) => el("button", { type: "button", title: `Save the values as ${kind}`, onclick: save(kind) }, kind)));
  const section = el("section", { class: `panel is-${description.form}`, "data-panel": description.id, "aria-labelledby": `title-${description.id}`, "aria-busy": "true" },
    el("header", {}, el("div", {}, el("h3", { id: `title-${description.id}`, title: description.title }, description.title), el("p", { title: description.question }, description.question)), note, tools), body);
  section.style.setProperty("--width", description.width);
  section.style.setProperty("--height", `${rows * 20}px`);

  const load = async (view, times, signal) => {
    section.setAttribute("aria-busy", "true");
    try {
      const { body: answer } = await ask(`/api/panels/${description.id}?${query(view, times, scene.more)}`, signal);
      known = answer;
      filters = view.filters;
      note.textContent = "";
      section.classList.toggle("is-empty", isEmpty(description, answer));
      section.classList.remove("is-failed");
      draw();
    } catch (error) {
      if (error.name === "AbortError") return null;
      section.classList.add("is-failed");
      const again = el("button", { type: "button", onclick: () => load(view, times, signal) }, "Try again");
      // What was shown stays, with its age.
      const told = el("span", { title: failure(error) }, `${known ? `as of ${when(known.now)}: ` : ""}${brief(error)} `);
      if (known) note.replaceChildren(told, again);
      else body.replaceChildren(el("p", { class: "nothing", role: "alert" }, told, again));
      return error;
    } finally {
      section.setAttribute("aria-busy", "false");
    }
    return null;
  };
  const hush = () => {
    if (known) note.textContent = `as of ${when(known.now)}`;
    else body.replaceChildren();
  };
  return { id: description.id, kept, section, load, draw, hush, told: () => known };
}

const focusable = (node) => [...node.querySelectorAll("button, a, [tabindex]")];

/** A note on a table that holds only the largest parts. */
function cutAt(description, answer) {
  const place = description.by.findIndex((split, i) => {
    const parts = new Map();
    for (const { keys } of answer.parts) {
      const outer = JSON.stringify(keys.slice(0, i));
      parts.set(outer, (parts.get(outer) || new Set()).add(JSON.stringify(keys[i])));
    }
    return split.size > 1 && [...parts.values()].some((known) => known.size >= split.size);
  });
  if (place < 0) return null;
  const { label, size } = description.by[place];
  return el("p", { class: "under" }, `The first ${thousands(size)} by ${label.toLowerCase()}${place > 0 ? ` of each ${description.by[0].label.toLowerCase()}` : ""}; there may be more.`);
}

/** A table with names in place of ids, where the view knows whose they are; files keep the ids. */
function named(description, data, { called }) {
  if (!called) return data;
  const fields = description.form === "list" ? description.columns.map((column) => column.field) : [...description.by.map((split) => split.field?.field), ...description.show.map((metric) => metric.field)];
  const cell = (one, i) => {
    const name = typeof one.raw === "string" && called(fields[i], one.raw);
    return name ? { ...one, text: name, title: `${name}, ${one.raw}`, sort: name } : one;
  };
  return { ...data, rows: data.rows.map((row) => row.map(cell)) };
}

/** What is inside of the frame. */
function content(description, answer, scene) {
  if (isEmpty(description, answer)) {
    if (!scene.filters.length) return [el("p", { class: "nothing" }, description.empty)];
    const fields = new Set(scene.filters.map((filter) => field(filter.field)));
    // Whether the filters emptied it or it always is, nobody knows without asking once more.
    return [el("p", { class: "nothing" }, `Nothing of this has ${[...fields].join(" and ")} as the filters say. `, el("button", { type: "button", onclick: scene.clear }, "Remove them"), `, and if it stays empty: ${description.empty}`)];
  }
  const rows = () => grid(named(description, table(description, answer), scene), { ...scene, title: description.title });
  if (scene.kept.isTable) return [rows()];
  const last = description.by.at(-1)?.kind;
  const overLine = { ...scene, height: scene.height - FRAME.legend };
  switch (description.form) {
    case "numbers": return numbers(description, answer, scene);
    case "table": case "list": {
      const cut = description.form === "list" && answer.documents > answer.parts.length ? el("p", { class: "under" }, `The ${description.oldestFirst ? "first" : "last"} ${thousands(answer.parts.length)} of ${thousands(answer.documents)}.`) : null;
      const most = cutAt(description, answer);
      return [cut, most, rows()].filter(Boolean);
    }
    case "donut": return donut(description, answer, scene);
    case "treemap": return treemap(description, answer, scene);
    case "heatmap": return heatmap(description, answer, scene);
    case "map": return map(description, answer, scene);
    default:
      if (last === "classes") return classes(description, answer, overLine);
      return last === "values" ? bars(description, answer, scene) : chart(description, answer, overLine);
  }
}

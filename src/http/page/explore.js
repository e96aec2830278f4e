// A dashboard: what is looked at above, panels below.

import { el, field, thousands, upTo } from "./text.js";
import { EVERY, LONGEST, PRESETS, ask, failure, has, length, query, times, toggled, zone } from "./view.js";
import { filterText } from "./data.js";
import { panel } from "./panel.js";
import { trouble } from "./now.js";

const AGO = { 0: "off", 10: "10 s", 30: "30 s", 60: "1 min", 300: "5 min" };

/** Fields of people, which sessions have of everybody who was in them. */
const OF_PEOPLE = /^(client\.|(location|user|connectionId)$)/;

/**
 * Shows a dashboard. `go(view)` leads to another address, `note(view)` writes it down. Gives its nodes, and `load()`, which asks for everything
 * anew, and fails if what is asked for cannot be shown at all.
 */
export function show(dashboard, view, { go, note }) {
  const scene = { marks: [], more: [], looks: view.looks, note: () => note(view), choose: (...filters) => go(toggled(view, filters)), zoom: (from, to) => go({ ...view, last: null, from, to }), clear: () => go({ ...view, filters: [] }) };
  const panels = [];
  for (const row of dashboard.rows) panels.push(...row.panels.map((description) => panel(description, row.height, scene)));
  const aborted = new AbortController();
  const load = async () => {
    const span = times(view);
    const marked = dashboard.isMarked ? ask(`/api/marks/${dashboard.id}?${query(view, span)}`, aborted.signal).then(({ body }) => body, () => []) : Promise.resolve([]);
    marked.then((marks) => { scene.marks.splice(0, Infinity, ...marks); if (marks.some((mark) => mark.times.length)) panels.forEach((one) => one.draw()); });
    const failures = await Promise.all(panels.map((one) => one.load(view, span, aborted.signal)));
    const [newest] = panels.map((one) => one.told()).filter(Boolean).sort((a, b) => b.now - a.now);
    // What nobody can answer is told once, and so is that nobody answers.
    const [first] = failures;
    const isOne = (error) => error && error.status === first.status && (first.status !== 400 || error.message === first.message);
    const isDown = first && failures.every(isOne);
    // What keeps events from coming says why panels are empty.
    const notices = newest ? [isDown ? null : trouble(newest), newest.reaches < span[1] ? upTo(newest.reaches, Date.now()) : null] : [];
    late.replaceChildren(...notices.filter(Boolean));
    if (!isDown) return;
    for (const one of panels) one.hush();
    throw first;
  };
  const late = el("div");
  const nodes = [
    el("header", { class: "title" }, el("h1", {}, dashboard.title), el("p", { class: "lead" }, dashboard.question)),
    el("div", { class: "looked" }, range(view, go), dashboard.controls.map((control) => choice(control, view, scene))),
    chips(dashboard, view, go), late, el("div", { class: "panels" }, panels.map((one) => one.section)),
  ].filter(Boolean);
  return { nodes, load, end: () => aborted.abort() };
}

/** What is chosen, each to be taken away. `called(field, value)`: what to call an id, where that is known. */
export function chips(dashboard, view, go, called) {
  if (!view.filters.length) return null;
  const splits = dashboard.rows.flatMap((row) => row.panels).flatMap((panel) => panel.by);
  const ofPeople = new Set(view.filters.map((filter) => filter.field).filter((field) => OF_PEOPLE.test(field)));
  return el("div", { class: "chips", role: "group", "aria-label": "Filters" },
    view.filters.map((filter) => el("button", { type: "button", class: "chip", title: `Remove this filter: ${filter.value}`, onclick: () => go(toggled(view, [filter])) }, el("span", {}, `${field(filter.field)} `), el("b", {}, called?.(filter.field, filter.value) || filterText(splits, filter)), " ×")),
    view.filters.length > 1 ? el("button", { type: "button", class: "more", onclick: () => go({ ...view, filters: [] }) }, "Remove all") : null,
    ofPeople.size ? el("p", { class: "quiet" }, `Sessions are those in which ${ofPeople.size > 1 ? "somebody fits each of these, be it not one and the same" : "such a person was"}; people, streams and what was streamed are of such people alone.`) : null,
    ofPeople.has("user") ? el("p", { class: "quiet" }, "What events tell of somebody counts from when it is known who that is.") : null,
    view.filters.some((filter) => filter.field === "geoPoints") ? el("p", { class: "quiet" }, "People, streams and what was streamed are those of this part of the map; sessions lie nowhere, so what is counted by sessions is empty.") : null);
}

/** A menu that closes when something else is touched. */
function menu(label, attributes, fill) {
  const inside = el("div", { class: "menu" });
  const details = el("details", attributes, el("summary", {}, label), inside);
  details.addEventListener("toggle", () => { if (details.open) fill(inside, () => { details.open = false; }); });
  details.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !details.open) return;
    event.stopPropagation();
    details.open = false;
    details.firstChild.focus();
  });
  return details;
}
addEventListener("pointerdown", (event) => {
  for (const open of document.querySelectorAll("details.choice[open]")) if (!open.contains(event.target)) open.open = false;
});

/** A menu of the values of a field. `scene`: `choose(filter)`, filters besides those of the view, `span()`, where the time is not the view's, and perhaps `called(field, value)`. */
export function choice(control, view, scene) {
  const chosen = view.filters.filter((filter) => filter.field === control.field);
  const named = (value) => scene.called?.(control.field, value) || value;
  const label = chosen.length ? `${control.label}: ${chosen.length === 1 ? named(chosen[0].value) : thousands(chosen.length)}` : control.label;
  return menu(label, { class: `choice${chosen.length ? " chosen" : ""}`, "data-key": control.field }, async (inside, close) => {
    inside.replaceChildren(el("p", { class: "quiet" }, "…"));
    try {
      // What is chosen of this field narrows all but what there is to choose of it.
      const others = { ...view, filters: view.filters.filter((filter) => filter.field !== control.field) };
      const { body } = await ask(`/api/values/${encodeURIComponent(control.field)}?${query(others, scene.span?.() || times(view), scene.more)}`);
      if (!body.parts.length) { inside.replaceChildren(el("p", { class: "quiet" }, `No ${control.label.toLowerCase()} is known in this time.`)); return; }
      const list = el("ul", {}, body.parts.map((part) => {
        const value = String(part.keys[0]);
        const isChosen = has(view, control.field, value);
        return el("li", {}, el("button", { type: "button", "aria-pressed": String(isChosen), title: value, onclick: () => { close(); scene.choose({ field: control.field, value }); } }, el("span", {}, named(value)), el("small", {}, thousands(part.values[0]))));
      }));
      const search = body.parts.length > 12 ? el("input", { type: "search", "aria-label": `Find a ${control.label.toLowerCase()}`, oninput: (event) => {
        const wanted = event.target.value.toLowerCase();
        for (const item of list.children) item.hidden = !item.textContent.toLowerCase().includes(wanted);
      } }) : null;
      inside.replaceChildren(...[search, list].filter(Boolean));
      (search || list.querySelector("button")).focus();
    } catch (error) {
      inside.replaceChildren(el("p", { class: "quiet" }, failure(error)));
    }
  });
}

/** From when to when, and how often anew. */
function range(view, go) {
  const [from, to] = times(view);
  const local = (ms) => new Date(ms - new Date(ms).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  const year = [from, to].every((ms) => new Date(ms).getFullYear() === new Date().getFullYear()) ? undefined : "numeric";
  const written = (ms) => new Date(ms).toLocaleString(undefined, { day: "numeric", month: "short", year, hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const preset = PRESETS.find(([last]) => last === view.last);
  const label = view.from ? `${written(from)} – ${written(to)}` : `Last ${preset ? preset[1] : view.last}`;
  const picked = menu(label, { class: "choice range", "data-key": "range" }, (inside, close) => {
    const input = (name, ms) => el("input", { type: "datetime-local", name, value: local(ms), "aria-label": name });
    const form = el("form", { onsubmit: (event) => {
      event.preventDefault();
      const [a, b] = ["from", "to"].map((name) => new Date(form.elements[name].value).getTime());
      if (a < b) { close(); go({ ...view, last: null, from: a, to: b }); } else form.lastChild.textContent = "The end has to be after the beginning.";
    } }, el("label", {}, "From ", input("from", from)), el("label", {}, "To ", input("to", to)), el("button", { type: "submit" }, "Apply"), el("p", { class: "quiet", role: "alert" }));
    inside.replaceChildren(
      el("ul", { class: "presets" }, PRESETS.map(([last, name]) => el("li", {}, el("button", { type: "button", "aria-pressed": String(view.last === last), onclick: () => { close(); go({ ...view, last, from: null, to: null }); } }, `Last ${name}`)))),
      form,
      el("div", { class: "every" }, el("span", { class: "quiet" }, "Ask anew every"), EVERY.map((every) => el("button", { type: "button", "aria-pressed": String(view.every === every), onclick: () => { close(); go({ ...view, every }); } }, AGO[every]))),
      el("p", { class: "quiet" }, `Times are those of ${zone()}. Drag over a chart to look closer.`));
    inside.querySelector("button").focus();
  });
  const span = view.from ? to - from : length(view.last);
  const shift = (by) => go({ ...view, last: null, from: Math.round(from + by * span), to: Math.round(to + by * span) });
  const button = (label, title, act) => el("button", { type: "button", title, "aria-label": title, onclick: act }, label);
  return el("div", { class: "period" }, button("‹", "Earlier", () => shift(-1)), picked, button("›", "Later", () => shift(1)),
    button("−", "Look at more time", () => {
      const until = Math.min(Math.max(to, Date.now()), Math.round(to + span / 2));
      go({ ...view, last: null, from: Math.max(Math.round(from - span / 2), until - LONGEST, 1), to: until });
    }));
}

// Panels that are not over time: numbers, rings, areas, grids, the map, bars by name.

import { amount, el, figure, share, svg, thousands } from "./text.js";
import { colorOf, filterOf, keyText, tile, valueText } from "./data.js";
import { folded, room, sized, tickText, timeTicks } from "./chart.js";

/** A part that can be chosen is a button, any other is text. */
function chosen(filter, scene, attributes, ...children) {
  if (!filter || !scene.choose) return el("span", attributes, ...children);
  return el("button", { type: "button", ...attributes, onclick: () => scene.choose(...filter) }, ...children);
}

/** The same inside of a drawing, for several filters at once. */
function chosenShape(filters, scene, label, ...children) {
  const choose = choosing(filters, scene);
  if (!choose) return svg("g", {}, ...children);
  return svg("g", { class: "chosen", role: "button", tabindex: "0", "aria-label": `Only ${label}`, onclick: choose, onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(); } } }, ...children);
}

/** Of very many shapes each can be pointed at, and none is a stop for keys: these go to the table of the panel. */
function choosing(filters, scene) {
  const known = filters.flat().filter(Boolean);
  return known.length && scene.choose ? () => scene.choose(...known) : null;
}

export function numbers(panel, answer, scene) {
  // Of several kinds of documents one may not have the field that is chosen by: that it has none of them says nothing.
  const said = (metric, value) => (panel.hasKinds && scene.filters?.length && !value && metric.isZero ? "–" : valueText(metric, value));
  const one = (part) => el("dl", { class: "figures" }, panel.show.map((metric, i) => el("div", {}, el("dd", {}, said(metric, part.values[i])), el("dt", {}, metric.label))));
  if (answer.parts.length === 1) return [one(answer.parts[0])];
  return answer.parts.map((part) => el("div", { class: "group" }, chosen(filterOf(panel.by[0], part.keys[0]), scene, { class: "name", title: keyText(panel.by[0], part.keys[0]) }, keyText(panel.by[0], part.keys[0])), one(part)));
}

export function donut(panel, answer, scene) {
  const parts = answer.parts.map((part) => ({ key: part.keys[0], value: part.values[0] || 0 })).filter((part) => part.value > 0);
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  const ring = svg("svg", { viewBox: "-50 -50 100 100", class: "ring", "aria-hidden": "true" });
  let angle = 0;
  const point = (turn, radius) => `${(Math.sin(turn * 2 * Math.PI) * radius).toFixed(2)} ${(-Math.cos(turn * 2 * Math.PI) * radius).toFixed(2)}`;
  parts.forEach((part, i) => {
    const turn = part.value / total;
    // A whole turn would end where it begins, and be nothing.
    const [a, b] = [angle, angle + Math.min(turn, 0.9999)];
    const large = turn > 0.5 ? 1 : 0;
    ring.append(svg("path", { class: `slice ${colorOf(panel.by[0], part.key, i)}`, d: `M${point(a, 46)}A46 46 0 ${large} 1 ${point(b, 46)}L${point(b, 30)}A30 30 0 ${large} 0 ${point(a, 30)}z` }, svg("title", {}, `${keyText(panel.by[0], part.key)}: ${figure(100 * turn)} %`)));
    angle += turn;
  });
  const { unit, per } = panel.show[0];
  ring.append(svg("text", { y: 4, "text-anchor": "middle", class: "total" }, amount(total, unit, per)));
  const list = el("ul", { class: "shares" }, parts.map((part, i) => el("li", {}, el("i", { class: `swatch ${colorOf(panel.by[0], part.key, i)}` }),
    chosen(filterOf(panel.by[0], part.key), scene, { class: "name" }, keyText(panel.by[0], part.key)),
    el("b", {}, amount(part.value, unit, per)), el("span", { class: "share" }, share(part.value, total)))));
  return [el("div", { class: "rings" }, ring, list)];
}

/** Bars by name, the largest first; of two splits, the inner one divides each bar. */
export function bars(panel, answer, scene) {
  const rows = new Map();
  for (const part of answer.parts) {
    const name = JSON.stringify(part.keys[0]);
    if (!rows.has(name)) rows.set(name, { key: part.keys[0], parts: [], sum: 0 });
    rows.get(name).parts.push(part);
    rows.get(name).sum += part.values[0] || 0;
  }
  const most = Math.max(...[...rows.values()].map((row) => row.sum), 0) || 1;
  const inner = panel.by.length > 1 ? [...new Set(answer.parts.map((part) => part.keys[1]))] : [];
  const { unit, per } = panel.show[0];
  const bar = (part) => el("i", { class: `fill c${Math.max(0, inner.indexOf(part.keys[1])) % 8}`, title: inner.length ? `${keyText(panel.by[1], part.keys[1])}: ${amount(part.values[0] || 0, unit, per)}` : null, style: { width: `${(100 * (part.values[0] || 0)) / most}%` } });
  const legend = inner.length ? el("div", { class: "legend" }, inner.map((key, i) => el("span", { class: "entry" }, el("i", { class: `swatch c${i % 8}` }), chosen(filterOf(panel.by[1], key), scene, {}, keyText(panel.by[1], key))))) : null;
  if (legend) folded(legend, scene.kept);
  return [legend, el("ul", { class: "bars" }, [...rows.values()].map((row) => el("li", {},
    chosen(filterOf(panel.by[0], row.key), scene, { class: "name" }, keyText(panel.by[0], row.key)),
    el("span", { class: "track" }, row.parts.map(bar)), el("b", {}, amount(row.sum, unit, per)))))].filter(Boolean);
}

/** Columns by classes of a number. */
export function classes(panel, answer, scene) {
  const most = Math.max(...answer.parts.map((part) => part.values[0] || 0)) || 1;
  const { unit, per } = panel.show[0];
  return [el("div", { class: "columns" }, answer.parts.map((part) => {
    const value = part.values[0] || 0;
    return el("div", {}, el("div", { class: "rise" }, el("i", { class: "fill c0", style: { height: `${(100 * value) / most}%` } }, el("b", {}, value ? amount(value, unit, per) : ""))), chosen(value ? filterOf(panel.by[0], part.keys[0]) : null, scene, { class: "name" }, keyText(panel.by[0], part.keys[0]).replaceAll("\u00a0", " ")));
  })), el("p", { class: "under" }, panel.by[0].label)];
}

/** Rectangles of a whole, in rows whose sides are as equal as may be. */
function squares(items, box) {
  const total = items.reduce((sum, item) => sum + item.value, 0);
  const scale = (box.width * box.height) / total;
  const placed = [];
  let { x, y, width, height } = box;
  let rest = [...items];
  while (rest.length) {
    const side = Math.min(width, height);
    let row = [], worst = Infinity;
    for (const item of rest) {
      const next = [...row, item];
      const sum = next.reduce((all, one) => all + one.value * scale, 0);
      const ratio = Math.max(...next.map((one) => Math.max((side * side * one.value * scale) / (sum * sum), (sum * sum) / (side * side * one.value * scale))));
      if (ratio > worst) break;
      [row, worst] = [next, ratio];
    }
    const sum = row.reduce((all, one) => all + one.value * scale, 0);
    const thick = sum / side;
    let along = 0;
    for (const item of row) {
      const long = (item.value * scale) / thick;
      placed.push(width < height ? { item, x: x + along, y, width: long, height: thick } : { item, x, y: y + along, width: thick, height: long });
      along += long;
    }
    if (width < height) { y += thick; height -= thick; } else { x += thick; width -= thick; }
    rest = rest.slice(row.length);
  }
  return placed;
}

export function treemap(panel, answer, scene) {
  const groups = new Map();
  for (const part of answer.parts) {
    if (!part.values[0]) continue;
    const name = JSON.stringify(part.keys[0]);
    if (!groups.has(name)) groups.set(name, { key: part.keys[0], value: 0, parts: [] });
    groups.get(name).value += part.values[0];
    groups.get(name).parts.push({ key: part.keys[1], value: part.values[0] });
  }
  const all = [...groups.values()].sort((a, b) => b.value - a.value);
  const total = all.reduce((sum, group) => sum + group.value, 0);
  const box = room("", scene.height);
  sized(box, (width, height) => {
    const root = svg("svg", { width, height, class: "treemap", role: "img", "aria-label": `${panel.title}: ${all.slice(0, 5).map((group) => `${keyText(panel.by[0], group.key)} ${figure((100 * group.value) / total)} %`).join(", ")}. The table has all values.` });
    squares(all, { x: 0, y: 0, width, height }).forEach((outer, i) => {
      const group = svg("g", { class: `c${i % 8}` });
      const label = keyText(panel.by[0], outer.item.key);
      squares(outer.item.parts, { x: outer.x, y: outer.y, width: outer.width, height: outer.height }).forEach((inner, j) => {
        const text = keyText(panel.by[1], inner.item.key);
        const shape = svg("rect", { x: inner.x + 1, y: inner.y + 1, width: Math.max(0, inner.width - 2), height: Math.max(0, inner.height - 2), rx: 3, "fill-opacity": Math.max(0.45, 1 - j * 0.16) });
        const part = share(inner.item.value, total);
        const [strong, plain] = ["strong", ""].map((kind) => (...lines) => lines.map((line) => ({ line, kind })));
        const heads = j === 0 ? [strong(label), strong(...label.split(" "))] : [[]];
        const isFit = ({ line }, n) => inner.width > line.length * 8 + 12 && inner.height > 18 * (n + 1) + 6;
        // A low one has its share beside its name, a narrow one its name in several lines, and one that has no room for all tells what it can.
        const named = heads.flatMap((head) => [[...head, ...plain(text, part)], [...head, ...plain(`${text} ${part}`)]]);
        const inOne = j === 0 ? [strong(`${label} ${text} ${part}`), ...heads] : [];
        const told = [...named, ...inOne, plain(text, part), plain(`${text} ${part}`), plain(text)];
        const fits = told.find((lines) => lines.every(isFit)) || [];
        const words = fits.map(({ line, kind }, n) => svg("text", { x: inner.x + 9, y: inner.y + 20 + 17 * n, class: kind }, line));
        group.append(chosenShape([filterOf(panel.by[0], outer.item.key), filterOf(panel.by[1], inner.item.key)], scene, `${label}, ${text}`, shape, ...words, svg("title", {}, `${label} · ${text}: ${thousands(inner.item.value)} (${figure((100 * inner.item.value) / total)} %)`)));
      });
      root.append(group);
    });
    box.replaceChildren(root);
  });
  return [box];
}

/** As many characters as stand beside a row of a grid. */
const BESIDE = 17;

/** A grid of two splits: the first gives rows, the second columns. */
export function heatmap(panel, answer, scene) {
  const [outer, inner] = panel.by;
  const isTime = inner.kind === "time";
  const whole = (list) => { const [least, most] = [Math.min(...list), Math.max(...list)]; return Array.from({ length: most - least + 1 }, (_, i) => least + i); };
  const distinct = (i) => { const keys = [...new Set(answer.parts.map((part) => part.keys[i]))]; return panel.by[i].kind === "steps" ? whole(keys) : keys; };
  const rows = outer.kind === "steps" && outer.field.field === "dayOfWeek" ? [1, 2, 3, 4, 5, 6, 7] : distinct(0);
  const columns = inner.kind === "steps" && inner.field.field === "hourOfDay" ? whole([0, 23]) : distinct(1);
  const values = new Map(answer.parts.map((part) => [JSON.stringify(part.keys), part.values[0]]));
  const most = Math.max(...answer.parts.map((part) => part.values[0] || 0)) || 1;
  const { unit, per } = panel.show[0];
  const names = rows.map((key) => scene.called?.(outer.field?.field, key) || keyText(outer, key));
  const box = room("", scene.height - 20);
  sized(box, (width, height) => {
    const left = Math.min(140, 16 + 7 * Math.max(...names.map((name) => name.length)));
    const step = isTime ? answer.step : 1;
    const [from, to] = isTime ? [scene.from, scene.to] : [columns[0], columns.at(-1) + 1];
    const x = (key) => left + ((key - from) / (to - from)) * (width - left);
    const high = (height - 20) / rows.length;
    const root = svg("svg", { width, height, role: "img", "aria-label": `${panel.title}. The table has all values.` });
    rows.forEach((row, i) => {
      root.append(svg("text", { class: "tick", x: left - 8, y: i * high + high / 2 + 4, "text-anchor": "end" }, names[i].length > BESIDE ? `${names[i].slice(0, BESIDE)}…` : names[i], svg("title", {}, names[i] === keyText(outer, row) ? names[i] : `${names[i]}, ${keyText(outer, row)}`)));
      columns.forEach((column) => {
        const value = values.get(JSON.stringify([row, column]));
        const [a, b] = [Math.max(left, x(column)), Math.min(width, x(column + step))];
        if (b <= a) return;
        const name = `${names[i]}, ${keyText(inner, column)}: ${value ? amount(value, unit, per) : "none"}`;
        const choose = value ? choosing([filterOf(outer, row), filterOf(inner, column)], scene) : null;
        root.append(svg("rect", { class: `cell${value ? "" : " none"}${choose ? " chosen" : ""}`, onclick: choose, x: a + 0.5, y: i * high + 1, width: Math.max(0.5, b - a - 1), height: Math.max(1, high - 2), rx: 2, "fill-opacity": value ? 0.15 + 0.85 * (value / most) : 1 }, svg("title", {}, name)));
      });
    });
    const ticks = isTime ? timeTicks(from, to, width - left).map(([at, text]) => [x(at), text]) : columns.filter((_, i) => i % 3 === 0).map((key) => [(x(key) + x(key + step)) / 2, keyText(inner, key)]);
    for (const [at, text] of ticks) if (at >= left) root.append(tickText(at, height - 4, width, text));
    box.replaceChildren(root);
  });
  // How days are counted says nothing where their names stand.
  const told = [outer, inner].filter((split) => split.kind === "steps").map((split) => split.label.replace(", 1 is Monday", "")).join(" · ");
  return [box, told ? el("p", { class: "under" }, told) : null].filter(Boolean);
}

/** Web Mercator, as the shapes of the land are: 2000 units around the world. */
const project = ([latitude, longitude]) => [((longitude + 180) / 360) * 2000, (1 - Math.log(Math.tan(Math.PI / 4 + (Math.max(-84, Math.min(84, latitude)) * Math.PI) / 360)) / Math.PI) * 1000];

export function map(panel, answer, scene) {
  const places = answer.parts.map((part) => ({ key: part.keys[0], at: project(tile(part.keys[0])), values: part.values })).filter((place) => place.values[0]);
  const most = Math.max(...places.map((place) => place.values[0]), 1);
  const box = room("map", scene.height);
  let land = null;
  const draw = (width, height) => {
    // All places, with room around them, and never less than a continent.
    const [xs, ys] = [places.map((place) => place.at[0]), places.map((place) => place.at[1])];
    const ratio = width / height;
    let [wide, high] = [Math.max(...xs) - Math.min(...xs) + 120, Math.max(...ys) - Math.min(...ys) + 120];
    [wide, high] = [Math.max(wide, high * ratio, 360), Math.max(high, wide / ratio, 360 / ratio)];
    if (wide > 2000) [wide, high] = [2000, 2000 / ratio];
    const middle = [(Math.max(...xs) + Math.min(...xs)) / 2, (Math.max(...ys) + Math.min(...ys)) / 2];
    const unit = wide / width;
    const root = svg("svg", { width, height, viewBox: `${middle[0] - wide / 2} ${middle[1] - high / 2} ${wide} ${high}`, preserveAspectRatio: "xMidYMid slice", role: "img", "aria-label": `${panel.title}: ${thousands(places.length)} places. The table has all values.` });
    // Shapes that cross the edge of the world go on beyond it: they are there once more on its other side.
    for (const turn of land ? [-2000, 0, 2000] : []) root.append(svg("g", { transform: `translate(${turn} 0)` }, svg("path", { class: "land", d: land.LAND }), svg("path", { class: "borders", d: land.BORDERS, "stroke-width": unit * 0.75 })));
    for (const place of places) {
      const radius = unit * (3.5 + 16 * Math.sqrt(place.values[0] / most));
      const choose = choosing([filterOf(panel.by[0], place.key)], scene);
      root.append(svg("circle", { class: `place${choose ? " chosen" : ""}`, onclick: choose, cx: place.at[0], cy: place.at[1], r: radius, "stroke-width": unit }, svg("title", {}, panel.show.map((metric, i) => `${metric.label}: ${valueText(metric, place.values[i])}`).join("\n"))));
    }
    box.replaceChildren(root);
  };
  let shown = null;
  sized(box, (...size) => { shown = size; draw(...size); });
  // The land is as large as all else of the page: fetched where there is a map.
  import("./world.js").then((world) => { land = world; if (shown) draw(...shown); });
  return [box];
}

// Charts over time or over steps of a number: lines, areas, bars. All that lie over the same time share one cross-hair.

import { COUNTED_LATE, amount, clock, day, el, minute, svg, thousands, when } from "./text.js";
import { keyText, series } from "./data.js";

const MARGIN = { right: 16, top: 12, bottom: 24 };
/** Of an axis: at least, around its labels, and of each character. */
const LABEL = { least: 36, around: 14, character: 6.4 };
/** Steps that are drawn at most. */
const STEPS_MAX = 4000;
/** So close to the edge, pixels, a text in the middle of its place is cut. */
const EDGE = 18;
/** As wide as it is said that a legend goes on, pixels. */
const MORE = 64;
/** Marks that lie closer, pixels, are one. */
const APART = 24;
/** A line goes on over as many steps without a value. */
const GAP = 3;
/** So many times between two values tell how regularly they come, and more than so many milliseconds are none between two samples. */
const SURE = 3, SAMPLES_MAX = 900000;
const MINUTE = 60000, HOUR = 3600000, DAY = 86400000;
const TICKS = [1000, 5000, 15000, 30000, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 3 * DAY, 5 * DAY, 7 * DAY, 14 * DAY, 30 * DAY, 61 * DAY, 91 * DAY, 183 * DAY, 365 * DAY, 730 * DAY, 1826 * DAY];

/** Calls `draw` with the width and height of `box`, again and again as they change. What is drawn takes no room, so it changes neither. */
export function sized(box, draw) {
  drawings.set(box, draw);
  observer.observe(box);
  return box;
}
const drawings = new WeakMap();
const observer = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    if (!target.isConnected) observer.unobserve(target);
    else if (contentRect.width && contentRect.height) drawings.get(target)(contentRect.width, contentRect.height);
  }
});

/** Charts that show a moment together, and which moment that is. */
const crossed = new Set();
let pointed = null;
function cross(at) {
  pointed = at;
  for (const chart of crossed) {
    if (chart.svg.isConnected) chart.show(at);
    else crossed.delete(chart);
  }
}

/** Room for a drawing: the rest of its panel, or on a phone so many pixels. */
export const room = (kind, height) => { const box = el("div", { class: `plot ${kind}` }); box.style.setProperty("--plot", `${height}px`); return box; };

/**
 * Draws an answer. `scene`: `from` and `to`, `marks` to be shown, `height` in pixels, `zoom(from, to)` and
 * `choose(filter)`; without these two nothing is narrowed.
 */
export function chart(panel, answer, scene) {
  const isTime = panel.by.at(-1).kind === "time";
  const shown = stacked(panel, filled(panel, named(panel, series(panel, answer), scene), answer, scene, isTime));
  const legend = el("div", { class: "legend" });
  const values = shown.map((one) => el("span", { class: "value" }));
  const pick = (one) => () => { box.firstChild?.classList.toggle("picking", one !== null); for (const other of shown) other.node?.classList.toggle("picked", other === one); };
  for (const i of ranked(panel, shown)) {
    const one = shown[i];
    const told = [one.label, one.id].filter(Boolean).join(", ");
    const name = one.filter && scene.choose ? el("button", { type: "button", title: `Only ${told}`, onclick: () => scene.choose(...one.filter) }, one.label) : el("span", { class: "name" }, one.label);
    legend.append(el("span", { class: "entry", title: told, onpointerenter: pick(one), onpointerleave: pick(null), onfocusin: pick(one), onfocusout: pick(null) }, el("i", { class: `swatch ${one.color}` }), name, values[i]));
  }
  // How high it was at most, or how low where that is worse, until somebody points at a moment. Of a rate it would be that of the busiest
  // step, and of what was greatest in a step a sum over series would be one of different moments.
  const write = (one, value) => amount(value, one.metric.unit, one.metric.per);
  const most = (one, what) => {
    if (!one.points.length || one.metric.per) return "";
    const all = one.points.map((point) => point[what]);
    return one.metric.isLeast ? `min ${write(one, Math.min(...all))}` : `max ${write(one, Math.max(...all))}`;
  };
  const isStacked = panel.form === "area" || panel.form === "bar";
  const together = isStacked && shown.length > 1 && shown[0].metric.isZero && !shown[0].metric.per ? `together ${most({ ...shown[0], points: shown.flatMap((one) => one.points) }, "high")}` : "";
  if (together) legend.append(el("span", { class: "entry" }, together));
  const fold = folded(legend, scene.kept);
  const box = room("", scene.height);
  const reach = isTime ? reachOf(shown, answer.step, panel.by.at(-1).isDense) : GAP * panel.by.at(-1).every;
  // For how long a value is shown as that of a moment.
  const every = answer.step || panel.by.at(-1).every;
  const held = panel.form === "stairs" ? Infinity : reach > GAP * every ? reach / 2 : every;
  const isAlone = panel.by.length === 1 && shown.length === 1;
  sized(box, (width, height) => {
    const drawn = draw(panel, answer, shown, scene, { width, height, isTime, reach });
    const read = (at) => shown.forEach((one, i) => {
      const point = at === null ? null : nearest(one.points, at, held);
      values[i].textContent = point ? write(one, point.value) : at === null ? most(one, "value") : "–";
    });
    const time = el("span", { class: "moment" });
    time.style.top = `${drawn.bottom + 5}px`;
    const tell = (at) => {
      read(at);
      time.textContent = at === null ? "" : isTime ? when(at) : keyText(panel.by.at(-1), at);
      if (at === null) return;
      // Below the hair, and within the chart.
      const x = drawn.x(at);
      time.style.left = `${x}px`;
      time.style.transform = `translateX(${(-100 * x) / width}%)`;
    };
    // Drawn anew, it shows what was pointed at before.
    watch(drawn, scene, isTime, tell)(isTime ? pointed : null);
    box.replaceChildren(drawn.svg, time);
    // Values make entries longer.
    fold();
  });
  legend.classList.toggle("alone", isAlone);
  return [legend, box];
}

/** With names in place of ids, where the view knows whose they are: `scene.called(field, value)`. */
function named(panel, all, scene) {
  const [split] = panel.by;
  const isEach = new Set(all.map((one) => one.outer)).size === all.length;
  return all.map((one) => {
    const name = one.outer === null ? null : scene.called?.(split.field?.field, one.outer);
    if (!name) return one;
    // What is measured of everybody is told by the title.
    return { ...one, id: String(one.outer), label: isEach ? name : one.label.replace(keyText(split, one.outer), () => name) };
  });
}

/** In which order a legend tells series, as places: of parts that are measured the highest first, all others as they are drawn. */
function ranked(panel, shown) {
  const places = shown.map((_, i) => i);
  const isMeasured = panel.form === "line" && panel.by.length > 1 && panel.by[0].field?.kind !== "number";
  const highest = shown.map((one) => Math.max(...one.points.map((point) => point.value)));
  return isMeasured ? places.sort((a, b) => highest[b] - highest[a]) : places;
}

/** Shows as many entries of a legend as have room, how many more there are, and all of them where that is asked for. Gives what does so anew. */
export function folded(legend, kept = {}) {
  const all = el("button", { type: "button", class: "all", hidden: true, onclick: () => { kept.isUnfolded = !kept.isUnfolded; fold(); } });
  const fold = () => {
    legend.classList.toggle("open", Boolean(kept.isUnfolded));
    legend.style.height = "";
    const entries = [...legend.querySelectorAll(".entry")];
    const isCut = !kept.isUnfolded && entries.at(-1)?.offsetTop >= legend.clientHeight;
    // What says that there are more has its place at the end of the last line.
    const isBeyond = entries.map((entry) => isCut && (entry.offsetTop >= legend.clientHeight || (entry.offsetTop + entry.offsetHeight >= legend.clientHeight && entry.offsetLeft + entry.offsetWidth > legend.clientWidth - MORE)));
    entries.forEach((entry, i) => entry.classList.toggle("beyond", isBeyond[i]));
    const more = isBeyond.filter(Boolean).length;
    all.hidden = !more && !kept.isUnfolded;
    all.textContent = kept.isUnfolded ? "fewer" : `+ ${thousands(more)} more`;
    all.setAttribute("aria-expanded", String(Boolean(kept.isUnfolded)));
    // What is pointed at changes no line, and so not the chart below.
    if (!kept.isUnfolded) legend.style.height = `${legend.offsetHeight}px`;
  };
  legend.append(all);
  sized(legend, fold);
  return fold;
}

/**
 * Over how much time a line goes on without a value: statistics come regularly, and what lies further apart is silence. Where steps are
 * dense, no smaller than values lie apart, one without a value is silence itself.
 */
function reachOf(shown, step, isDense) {
  const least = isDense ? step : GAP * step;
  const apart = spacing(...shown.map((one) => one.points.map((point) => point.x)));
  return Math.max(least, (isDense ? 1.2 : 2) * apart);
}

/** How far apart the times of each list mostly lie; 0 where that is not regular. */
function spacing(...lists) {
  const gaps = lists.flatMap((times) => times.slice(1).map((time, i) => time - times[i])).sort((a, b) => a - b);
  const [median, most] = [0.5, 0.75].map((part) => gaps[Math.floor(gaps.length * part)]);
  return gaps.length >= SURE && most <= 1.5 * median && median <= SAMPLES_MAX ? median : 0;
}

/** With a 0 at each step where nothing was counted, so that lines come down to it; what is added up stays as it was. */
function filled(panel, all, answer, scene, isTime) {
  if (!isTime || !answer.step) return all;
  const known = all.flatMap((one) => one.points.map(([x]) => x));
  const first = known.length ? Math.min(...known) : scene.from;
  // Steps are those of the clock, so the first may begin before what is looked at.
  const begin = first - Math.max(0, Math.floor((first - scene.from) / answer.step)) * answer.step;
  // A day on which clocks are changed is longer or shorter than a step: the next one begins where something was counted in it.
  const begins = [...new Set(known)].sort((a, b) => a - b);
  const next = (at) => {
    const known = begins.find((begin) => begin > at + answer.step / 2);
    return known < at + 1.5 * answer.step ? known : at + answer.step;
  };
  // What was open is counted a little later, and as often as somebody wants: a step between two counts tells nothing.
  const counted = Math.max(begins.length ? begins.at(-1) + answer.step : 0, Math.min(scene.to, answer.reaches - COUNTED_LATE));
  const apart = spacing(begins) || answer.step;
  const isBetween = (at) => begins.some((begin) => begin !== at && Math.abs(begin - at) < apart);
  return all.map((one) => {
    if (!one.metric.isZero && !one.metric.isRunning && !one.metric.isOpen) return one;
    const values = new Map(one.points);
    const points = [];
    const end = one.metric.isRunning ? Math.min(scene.to, Date.now()) : one.metric.isOpen ? counted : scene.to;
    let last = 0;
    for (let at = begin; at < end && points.length < STEPS_MAX; at = next(at)) {
      last = values.get(at) ?? (one.metric.isRunning ? last : 0);
      if (values.has(at) || !one.metric.isOpen || !isBetween(at)) points.push([at, last]);
    }
    return { ...one, points };
  });
}

/** Each point as `{ x, value, low, high }`: from where to where it is drawn. */
function stacked(panel, all) {
  const sums = new Map();
  const isStacked = panel.form !== "line" && panel.form !== "stairs";
  const totals = new Map();
  if (panel.form === "fullBar") for (const one of all) for (const [x, value] of one.points) totals.set(x, (totals.get(x) || 0) + value);
  return all.map((one) => ({
    ...one,
    points: [...one.points].sort((a, b) => a[0] - b[0]).map(([x, value]) => {
      const share = totals.size ? (totals.get(x) ? (100 * value) / totals.get(x) : 0) : value;
      const low = isStacked ? sums.get(x) || 0 : 0;
      if (isStacked) sums.set(x, low + share);
      return { x, value, low, high: low + share };
    }),
  }));
}

function nearest(points, at, step) {
  let best = null;
  for (const point of points) if (point.x <= at && (!best || point.x > best.x)) best = point;
  return best && at - best.x < (step || Infinity) ? best : null;
}

/** Round numbers between the least and the greatest, about `count` of them. `isWide`: and the ones around these two. */
function rounds(least, most, count, isWide) {
  const span = most - least || 1;
  const power = 10 ** Math.floor(Math.log10(span / count));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => span / n <= count) || power * 10;
  const found = [];
  const [first, last] = isWide ? [Math.floor(least / step + 1e-9), Math.ceil(most / step - 1e-9)] : [Math.ceil(least / step - 1e-9), Math.floor(most / step + 1e-9)];
  for (let n = first; n <= last; n += 1) found.push(Number((n * step).toPrecision(12)));
  return found;
}

/** What people count a unit in, from the largest on. */
const COUNTED = { seconds: [86400, 3600, 60, 1], milliseconds: [60000, 1000, 1], bytes: [1024 ** 4, 1024 ** 3, 1024 ** 2, 1024, 1] };

function axis(shown, panel, height) {
  if (!shown.length) return null;
  const highs = shown.flatMap((one) => one.points.map((point) => point.high));
  const lows = shown.flatMap((one) => one.points.map((point) => point.low || point.high));
  const isWhole = shown.every((one) => one.metric.unit === "number" && !one.metric.per);
  const { unit, per } = shown[0].metric;
  const most = panel.form === "fullBar" ? 100 : Math.max(...highs, isWhole ? 1 : 0) || 1;
  let least = Math.min(0, ...lows);
  const base = (COUNTED[unit] || [1]).find((size) => most >= 1.5 * size) || 1;
  const ticks = rounds(least / base, most / base, Math.max(2, Math.floor(height / 34)), true).map((n) => n * base).filter((n) => !isWhole || Number.isInteger(n));
  const top = Math.max(most, ticks.at(-1) ?? most);
  least = Math.min(least, ticks[0] ?? least);
  const bottom = MARGIN.top + height;
  return { y: (value) => bottom - ((value - least) / (top - least)) * height, ticks, write: (n) => (panel.form === "fullBar" ? `${n}\u00a0%` : n === 0 ? "0" : amount(n, unit, per)) };
}

function draw(panel, answer, shown, scene, { width, height, isTime, reach }) {
  const high = height - MARGIN.top - MARGIN.bottom;
  const left = axis(shown.filter((one) => !one.isRight), panel, high);
  const right = axis(shown.filter((one) => one.isRight), panel, high);
  const side = (scale) => Math.max(LABEL.least, LABEL.around + LABEL.character * Math.max(...scale.ticks.map((tick) => scale.write(tick).length)));
  const margin = { left: left ? side(left) : LABEL.least, right: right ? side(right) : MARGIN.right };
  const inner = { width: width - margin.left - margin.right, height: high };
  const known = shown.flatMap((one) => one.points.map((point) => point.x));
  const step = isTime ? answer.step || 0 : panel.by.at(-1).every;
  const [from, to] = isTime ? [scene.from, scene.to] : [Math.min(...known), Math.max(...known) + step];
  const x = (at) => margin.left + ((at - from) / (to - from)) * inner.width;
  const at = (px) => Math.max(from, Math.min(to, from + ((px - margin.left) / inner.width) * (to - from)));
  const root = svg("svg", { width, height, role: "img", tabindex: "0", "aria-label": summary(panel, shown) });
  const bottom = MARGIN.top + inner.height;
  for (const [scale, isLeft] of [[left, true], [right, false]]) {
    for (const tick of scale?.ticks || []) {
      const y = Math.round(scale.y(tick)) + 0.5;
      if (isLeft || !left) root.append(svg("line", { class: tick === 0 ? "zero" : "grid", x1: margin.left, x2: margin.left + inner.width, y1: y, y2: y }));
      root.append(svg("text", { class: "tick", x: isLeft ? margin.left - 8 : margin.left + inner.width + 8, y: y + 4, "text-anchor": isLeft ? "end" : "start" }, scale.write(tick)));
    }
  }
  for (const tick of isTime ? timeTicks(from, to, inner.width) : rounds(from, to, inner.width / 80).map((n) => [n, keyText(panel.by.at(-1), n)])) {
    const px = x(tick[0]);
    if (px < margin.left - 1 || px > margin.left + inner.width + 1) continue;
    root.append(svg("line", { class: "stub", x1: px, x2: px, y1: bottom, y2: bottom + 4 }), tickText(px, bottom + 17, width, tick[1]));
  }
  const clipped = svg("g", {});
  const scaleOf = (one) => (one.isRight ? right : left);
  const within = (at) => Math.max(margin.left, Math.min(margin.left + inner.width, x(at)));
  const isBars = panel.form === "bar" || panel.form === "fullBar";
  const shapes = (one) => {
    if (isBars) return [bars(one, scaleOf(one), x, step, { left: margin.left, right: margin.left + inner.width })];
    return panel.form === "stairs" ? [stairs(one, scaleOf(one), within, step)] : line(one, scaleOf(one), within, { step, reach, isArea: panel.form === "area" });
  };
  for (const one of isBars ? shown : [...shown].reverse()) {
    one.node = svg("g", { class: "series" }, shapes(one));
    clipped.append(one.node);
  }
  root.append(clipped);
  if (isTime) for (const happened of together(scene.marks, from, to, x)) root.append(marked(happened, x, bottom));
  return { svg: root, x, at, top: MARGIN.top, bottom, step };
}

/** What is marked, in the order of time; what lies too close to be told apart is one. */
function together(marks, from, to, x) {
  const all = marks.flatMap((mark) => mark.times.filter((at) => at >= from && at < to).map((at) => ({ at, label: mark.label }))).sort((a, b) => a.at - b.at);
  const groups = [];
  for (const one of all) {
    const group = groups.at(-1);
    if (group && x(one.at) - x(group[0].at) < APART) group.push(one);
    else groups.push([one]);
  }
  return groups;
}

/** A mark: where it happened a line down to the axis, of several how far they lie apart. */
function marked(happened, x, bottom) {
  const [first, last] = [happened[0].at, happened.at(-1).at];
  const [left, right] = [x(first), x(last)];
  const middle = (left + right) / 2;
  const isOne = right - left < 2;
  const line = isOne ? svg("line", { x1: middle, x2: middle, y1: MARGIN.top, y2: bottom }) : svg("path", { d: `M${left} ${MARGIN.top - 3}H${right}v2H${left}z` });
  const counts = new Map();
  for (const { label } of happened) counts.set(label, (counts.get(label) || 0) + 1);
  const told = [...counts].map(([label, n]) => (n > 1 ? `${label} × ${thousands(n)}` : label)).join(", ");
  return svg("g", { class: "happened" }, line, svg("path", { d: `M${middle} ${MARGIN.top + 5}l-4-7h8z` }), svg("title", {}, `${told}, ${when(first)}${when(last) === when(first) ? "" : ` – ${when(last)}`}`));
}

function bars(one, scale, x, step, bounds) {
  const group = svg("g", { class: one.color });
  for (const point of one.points) {
    const [a, b] = [Math.max(bounds.left, x(point.x)), Math.min(bounds.right, x(point.x + step))];
    const gap = b - a > 4 ? 1 : b - a > 2 ? 0.5 : 0;
    const [top, low] = [scale.y(point.high), scale.y(point.low)];
    if (low > top && b > a) group.append(svg("rect", { class: "bar", x: a + gap / 2, width: Math.max(0.5, b - a - gap), y: top, height: Math.max(1, low - top) }));
  }
  return group;
}

function line(one, scale, x, { step, reach, isArea }) {
  // A value is of a whole step: drawn in its middle.
  const place = (point) => x(point.x + step / 2);
  const runs = [];
  for (const point of one.points) {
    const run = runs.at(-1);
    if (run && point.x - run.at(-1).x <= reach) run.push(point);
    else runs.push([point]);
  }
  const path = (points, key) => points.map((point) => `${place(point).toFixed(1)} ${scale.y(point[key]).toFixed(1)}`).join("L");
  return runs.flatMap((run) => {
    if (run.length === 1) return [svg("circle", { class: `dot ${one.color}`, cx: place(run[0]), cy: scale.y(run[0].high), r: 2.5 })];
    const top = svg("path", { class: `line ${one.color}`, d: `M${path(run, "high")}` });
    if (!isArea) return [top];
    return [svg("path", { class: `area ${one.color}`, d: `M${path(run, "high")}L${path([...run].reverse(), "low")}z` }), top];
  });
}

/** As high as it was until something else is told; of the last one it is not known for how long. */
function stairs(one, scale, x, step) {
  const heights = one.points.map((point, i) => `${x(point.x).toFixed(1)} ${scale.y(point.high).toFixed(1)}H${x(one.points[i + 1]?.x ?? point.x + step).toFixed(1)}`);
  return svg("path", { class: `line ${one.color}`, d: `M${heights.join("L")}` });
}

/** What stands below an axis: in the middle of its place, or at the edge of the drawing where it would be cut. */
export const tickText = (x, y, width, text) => { const isLast = x > width - EDGE; return svg("text", { class: "tick", x: isLast ? width : x, y, "text-anchor": isLast ? "end" : "middle" }, text); };

/** Round moments, and how they are written: the day where it begins, the clock else. */
export function timeTicks(from, to, width) {
  const isLong = to - from > 300 * DAY;
  const step = TICKS.find((step) => (to - from) / step <= width / (isLong ? 120 : 84)) || TICKS.at(-1);
  const behind = (at) => new Date(at).getTimezoneOffset() * MINUTE;
  const found = [];
  // Where clocks show a round time, also after they were changed.
  for (let shown = Math.ceil((from - behind(from)) / step) * step; ; shown += step) {
    const at = shown + behind(shown + behind(from));
    if (at >= to) break;
    const isDay = step >= DAY || clock(at) === "00:00:00";
    found.push([at, isDay ? day(at, !isLong) : step < MINUTE ? clock(at) : minute(at)]);
  }
  return found;
}

function summary(panel, shown) {
  const told = shown.slice(0, 8).map((one) => {
    const most = one.points.reduce((best, point) => (point.value > best ? point.value : best), -Infinity);
    return `${one.label}: at most ${amount(most, one.metric.unit, one.metric.per)}`;
  });
  return `${panel.title}. ${told.join("; ")}${shown.length > 8 ? `; and ${thousands(shown.length - 8)} more` : ""}. The table has all values.`;
}

/** Cross-hair, and choosing a time by dragging. Gives what shows a moment, or with null none. */
function watch(drawn, scene, isTime, read) {
  const root = drawn.svg;
  const hair = svg("line", { class: "hair", y1: drawn.top, y2: drawn.bottom });
  const brush = svg("rect", { class: "brush", y: drawn.top, height: drawn.bottom - drawn.top });
  let begun = null;
  const show = (at) => {
    hair.classList.toggle("shown", at !== null);
    if (at !== null) { hair.setAttribute("x1", drawn.x(at)); hair.setAttribute("x2", drawn.x(at)); }
    read(at);
  };
  if (isTime) crossed.add({ svg: root, show });
  const tell = isTime ? cross : show;
  const place = (event) => drawn.at(event.clientX - root.getBoundingClientRect().left);
  let current = null;
  root.append(hair, brush);
  root.addEventListener("pointermove", (event) => {
    current = place(event);
    tell(current);
    if (begun === null) return;
    const [a, b] = [drawn.x(Math.min(begun, current)), drawn.x(Math.max(begun, current))];
    brush.setAttribute("x", a);
    brush.setAttribute("width", b - a);
  });
  root.addEventListener("pointerleave", () => { if (begun === null) tell(null); });
  if (isTime && scene.zoom) {
    root.classList.add("zoomed");
    root.addEventListener("pointerdown", (event) => {
      if (event.button || event.pointerType === "touch") return;
      begun = place(event);
      root.setPointerCapture(event.pointerId);
    });
    const end = (event) => {
      if (begun === null) return;
      const [a, b] = [Math.min(begun, place(event)), Math.max(begun, place(event))];
      begun = null;
      brush.setAttribute("width", 0);
      if (drawn.x(b) - drawn.x(a) > 6) scene.zoom(Math.round(a), Math.round(b));
    };
    root.addEventListener("pointerup", end);
    root.addEventListener("pointercancel", () => { begun = null; brush.setAttribute("width", 0); });
  }
  root.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const step = drawn.step || 1;
    current = drawn.at(drawn.x(current === null ? drawn.at(0) : current + by * step));
    tell(current);
  });
  root.addEventListener("blur", () => tell(null));
  return show;
}

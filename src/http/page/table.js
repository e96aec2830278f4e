// Tables: sorted by any column, cut where they are long, and as files.

import { csv, download, el, thousands } from "./text.js";
import { address } from "./view.js";
import { sized } from "./chart.js";

const ROWS = 100;
/** As wide as a cell of text is at most, pixels, the first one half as wide again: the widest with which a table fits; a narrower one cuts too much. */
const CELLS = [280, 220, 180, 150, 124, 104, 88];
/** From so narrow cells on, they stand closer. */
const CLOSE = 180;

/**
 * `data`: heads and rows of cells, see `data.js`. `options`: `choose(filter)`, `title`, `kept`, where it notes how it is looked at, and
 * `note()`, which is called when that has changed.
 */
export function grid(data, options) {
  const { kept, note } = options;
  let rows = data.rows;
  const body = el("tbody");
  const more = el("button", { type: "button", class: "more", onclick: () => { kept.isWhole = true; fill(); } });
  const heads = data.heads.map((head, i) => {
    const sort = () => {
      kept.sorted = { i, isRising: kept.sorted?.i === i ? !kept.sorted.isRising : !head.isNumber };
      arrange();
      fill();
      note();
    };
    const name = el("button", { type: "button", onclick: sort }, upper(head.label));
    // A long name takes two lines above narrow figures, not one for each word.
    name.style.setProperty("--least", `${Math.ceil(head.label.length / 2) + 5}ch`);
    return el("th", { scope: "col", class: head.isNumber ? "n" : "", "aria-sort": "none" }, name);
  });
  const arrange = () => {
    // An address may name a column that there is not.
    if (!data.heads[kept.sorted?.i]) return;
    const { i, isRising } = kept.sorted;
    const value = (row) => row[i].sort ?? row[i].raw;
    rows = [...data.rows].sort((a, b) => (isRising ? 1 : -1) * compare(value(a), value(b)));
    heads.forEach((cell, n) => cell.setAttribute("aria-sort", n === i ? (isRising ? "ascending" : "descending") : "none"));
  };
  const fill = () => {
    const most = kept.isWhole ? rows.length : ROWS;
    body.replaceChildren(...rows.slice(0, most).map((row) => el("tr", {}, row.map((cell, i) => el("td", { class: data.heads[i].isNumber ? "n" : "", title: cell.title ?? cell.text }, content(cell, options))))));
    more.hidden = rows.length <= most;
    more.textContent = `Show all ${thousands(rows.length)}`;
  };
  arrange();
  fill();
  const box = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.title || "Table" }, el("table", {}, el("thead", {}, el("tr", {}, heads)), body), more);
  return fitted(box, kept);
}

const upper = (text) => text && `${text[0].toUpperCase()}${text.slice(1)}`;

/** Makes a table as narrow as its room, if it can be; if not, it fades where it goes on. How narrow it was, `kept` knows for the next one. */
function fitted(box, kept) {
  const dress = (cell) => {
    box.style.setProperty("--cell", `${cell}px`);
    box.classList.toggle("close", cell <= CLOSE);
  };
  const isFit = (cell) => { dress(cell); return box.scrollWidth <= box.clientWidth; };
  const fade = () => box.classList.toggle("further", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  let width = 0;
  sized(box, (now) => {
    if (now === width) return;
    width = now;
    // A frame later, because cells change how high the box is.
    requestAnimationFrame(() => {
      // One that goes on anyway gains nothing by standing close.
      kept.cell = CELLS.find(isFit) || CLOSE + 1;
      dress(kept.cell);
      fade();
    });
  });
  box.addEventListener("scroll", fade, { passive: true });
  if (kept.cell) dress(kept.cell);
  return box;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  return String(a).localeCompare(String(b), undefined, { numeric: true });
}

function content(cell, options) {
  if (cell.session) return el("a", { href: address({ path: ["s", cell.session], filters: [], last: "24h" }) }, cell.text);
  if (cell.filter && options.choose) return el("button", { type: "button", class: "pickable", onclick: () => options.choose(...cell.filter) }, cell.text);
  if (cell.search) return el("a", { href: `#/?q=${encodeURIComponent(cell.search)}` }, cell.text);
  return cell.text;
}

export function saveCsv(name, data) {
  download(`${name}.csv`, "text/csv", csv([data.heads.map((head) => head.label), ...data.rows.map((row) => row.map((cell) => cell.raw))]));
}

export function saveJson(name, value) {
  download(`${name}.json`, "application/json", JSON.stringify(value, null, 2));
}

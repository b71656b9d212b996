// One row, and all that other tables know of it: why it is as it is.

import { cell, el, get, isNumber, number, placed, svg, told } from "./dom.js";

const FEW = 25;

export class Drawer {
  constructor(root, picture) {
    this.root = root;
    this.picture = picture;
    root.addEventListener("click", (e) => { if (e.target === root) root.close(); });
  }

  open(item, row) {
    this.item = item;
    const keys = item.key.length ? item.key : [];
    this.row = Object.fromEntries(item.columns.map((c, i) => [c.name, row[i]]));
    const title = keys.map((k) => `${k} ${this.row[k]}`).join(", ");
    this.facts = el("dl", { class: "facts" });
    this.describe(row);
    this.related = related(this.picture, item).map((other) => new Related(other, this.row));
    this.root.replaceChildren(
      el("div", { class: "head" }, el("h2", { id: "drawer-title" }, `${item.name}${title ? `: ${title}` : ""}`),
        el("button", { type: "button", onclick: () => this.root.close() }, "Close")),
      el("section", { class: "sheet" }, this.facts),
      ...this.related.map((r) => r.root));
    if (!this.root.open) this.root.showModal();
    this.related.forEach((r) => r.draw());
  }

  describe(row) {
    this.facts.replaceChildren(...this.item.columns.map((c, i) => {
      const shown = cell(row[i], c);
      return el("div", {}, el("dt", {}, c.name), el("dd", { class: shown.classList.contains("down") ? "down" : null }, shown.textContent));
    }));
  }

  // After a commit: the same row as it stands now.
  async again() {
    if (!this.root.open || !this.item) return;
    this.related.forEach((r) => r.draw());
    if (!this.item.key.length) return;
    const page = await get(`/api/table/${encodeURIComponent(this.item.name)}?${wheres(this.item.key, this.row)}`).catch(() => null);
    if (page?.rows.length === 1) this.describe(page.rows[0]);
  }
}

class Related {
  constructor({ item, by }, row) {
    this.item = item;
    // What has times is a history: the newest first.
    const time = item.columns.find((c) => c.type.startsWith("TIMESTAMP") && !c.masked);
    this.query = wheres(by, row) + (time ? `&sort=${encodeURIComponent(time.name)}&descending=true` : "");
    this.columns = item.columns.filter((c) => !by.includes(c.name));
    this.by = by;
    this.body = el("div", {}, el("p", { class: "soft" }, "…"));
    this.measure = "";
    this.root = el("section", { class: "sheet" },
      el("h3", {}, el("a", { href: `#/table/${encodeURIComponent(item.name)}` }, item.name), " ", el("span", { class: "soft" }, item.kind)), this.body);
  }

  async draw() {
    try {
      const page = await get(`/api/table/${encodeURIComponent(this.item.name)}?limit=${FEW}&${this.query}`);
      this.page = page;
      this.show();
    } catch (problem) {
      this.body.replaceChildren(told(problem.message));
    }
  }

  show() {
    const { page, item } = this;
    const place = (c) => item.columns.indexOf(c);
    this.root.hidden = page.rows.length === 0;
    if (page.rows.length === 1) {
      return this.body.replaceChildren(el("dl", { class: "facts" }, this.columns.map((c) => el("div", {}, el("dt", {}, c.name), el("dd", {}, cell(page.rows[0][place(c)], c).textContent)))));
    }
    const table = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Rows of ${item.name}` }, el("table", {},
      el("thead", {}, el("tr", {}, this.columns.map((c) => el("th", { scope: "col", class: isNumber(c.type) ? "number" : null }, c.name)))),
      el("tbody", {}, page.rows.map((row) => el("tr", {}, this.columns.map((c) => cell(row[place(c)], c)))))));
    const more = page.total > page.rows.length && el("p", { class: "soft" }, `${number(page.rows.length)} of ${number(page.total)} rows`);
    this.body.replaceChildren(...[this.curve(place), table, more].filter(Boolean));
  }

  // Rows that differ in one key column alone make a figure: one bar for each, of the measure that is chosen.
  curve(place) {
    const rest = this.item.key.filter((k) => !this.by.includes(k));
    const measures = this.columns.filter((c) => isNumber(c.type) && !this.item.key.includes(c.name));
    if (rest.length !== 1 || !measures.length) return null;
    const chosen = measures.find((c) => c.name === this.measure) ?? measures[0];
    const along = this.item.columns.find((c) => c.name === rest[0]);
    const points = this.page.rows.map((row) => [row[place(along)], row[place(chosen)]]).filter(([, v]) => v !== null).map(([k, v]) => [String(k), Number(v), v]);
    if (!points.length) return null;
    points.sort((a, b) => (Number(a[0]) - Number(b[0]) || a[0].localeCompare(b[0])));
    const low = Math.min(0, ...points.map((p) => p[1])), high = Math.max(0, ...points.map((p) => p[1]));
    const x = (v) => ((v - low) / (high - low || 1)) * 100;
    const choice = el("select", { "aria-label": `Measure of ${this.item.name}`, onchange: (e) => { this.measure = e.target.value; this.show(); } },
      measures.map((c) => el("option", { value: c.name, selected: c === chosen }, c.name)));
    const bars = points.flatMap(([name, v, exact]) => [el("span", {}, name),
      svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": true },
        svg("rect", { class: v < 0 ? "down" : null, x: Math.min(x(0), x(v)), width: Math.max(.4, Math.abs(x(v) - x(0))), y: 1, height: 8 }),
        svg("line", { x1: x(0), x2: x(0), y1: 0, y2: 10, "stroke-width": .3 })),
      el("span", {}, cell(exact, chosen).textContent)]);
    return el("div", {}, el("p", { class: "soft" }, choice, ` by ${along.name}`), el("div", { class: "bars" }, bars));
  }
}

function wheres(names, row) {
  return new URLSearchParams(names.map((k) => [`where.${k}`, row[k]])).toString();
}

// What shares the item's key: what is delivered first, then what it was made from, nearest first, then the others.
function related(picture, item) {
  const by = new Map(picture.items.filter((i) => i.kind !== "sink").map((i) => [i.name, i]));
  const near = [];
  const walk = (next) => {
    let layer = [item.name];
    const seen = new Set(layer);
    while (layer.length) {
      layer = layer.flatMap((n) => next(n)).filter((n) => !seen.has(n) && seen.add(n));
      near.push(...layer);
    }
  };
  walk((n) => by.get(n)?.reads ?? []);
  walk((n) => [...by.values()].filter((i) => i.reads.includes(n)).map((i) => i.name));
  const delivered = picture.items.filter((i) => i.kind === "sink").flatMap((i) => i.reads);
  const order = [...new Set([...delivered, ...near, ...by.keys()])];
  return order.filter((n) => n !== item.name && by.get(n)?.kept).map((n) => by.get(n)).map((other) => ({
    item: other,
    by: item.key.filter((k) => other.columns.some((c) => c.name === k)),
  })).filter((r) => r.by.length && r.by.length === item.key.length);
}

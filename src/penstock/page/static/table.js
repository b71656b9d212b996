// A table of a view or source: searched, sorted and paged by the database, at most 200 rows here, told anew in place.

import { cell, el, get, isNumber, number, told } from "./dom.js";

export class Table {
  // `asked`: sort, descending, search, offset. `note`: told when they change. `open`: told of the row that was chosen.
  constructor(item, asked, note, open) {
    Object.assign(this, { item, note, open, asked: { sort: "", descending: false, search: "", offset: 0, limit: 50, ...asked } });
    this.shown = new Map();
    this.turn = 0;
    this.message = el("div");
    this.body = el("tbody");
    this.heads = el("tr");
    this.counted = el("span", { class: "soft", role: "status" });
    this.search = el("input", { type: "search", placeholder: "Search  ( / )", "aria-label": `Search ${item.name}`, value: this.asked.search, oninput: () => this.searched() });
    this.back = el("button", { type: "button", onclick: () => this.move(-1) }, "Back");
    this.on = el("button", { type: "button", onclick: () => this.move(1) }, "Next");
    this.root = el("div", {},
      el("div", { class: "bar" }, el("h2", {}, item.name), this.search, el("span", { class: "grow" }), this.counted, this.back, this.on),
      this.message,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Rows of ${item.name}` }, el("table", {}, el("thead", {}, this.heads), this.body)));
    this.draw(false);
  }

  searched() {
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.ask({ search: this.search.value, offset: 0 }), 200);
  }

  ask(change) {
    Object.assign(this.asked, change);
    this.note(this.asked);
    this.draw(false);
  }

  move(pages) {
    this.ask({ offset: Math.max(0, this.asked.offset + pages * this.asked.limit) });
  }

  // `again`: the same page after a commit; what has changed in it is marked.
  async draw(again) {
    const turn = ++this.turn;
    const { sort, descending, search, offset, limit } = this.asked;
    const query = new URLSearchParams({ offset, limit, ...(sort && { sort, descending }), ...(search && { search }) });
    try {
      const page = await get(`/api/table/${encodeURIComponent(this.item.name)}?${query}`);
      if (turn !== this.turn) return;
      this.message.replaceChildren();
      this.asked.offset = page.offset;
      this.show(page, again);
    } catch (problem) {
      if (turn === this.turn) this.message.replaceChildren(told(problem.message));
    }
  }

  show(page, again) {
    const columns = this.item.columns;
    this.head(columns);
    const keys = this.item.key.map((k) => columns.findIndex((c) => c.name === k)).filter((i) => i >= 0);
    const before = this.shown;
    this.shown = new Map();
    const rows = page.rows.map((row, place) => {
      const key = JSON.stringify(keys.length ? keys.map((i) => row[i]) : row);
      const old = before.get(key);
      const made = el("tr", { class: "open", tabindex: place === 0 ? "0" : "-1", onclick: () => this.open(row), onkeydown: (e) => this.step(e, row) },
        row.map((value, i) => {
          const td = cell(value, columns[i]);
          if (again && keys.length && (!old || JSON.stringify(old[i]) !== JSON.stringify(value))) td.classList.add("changed");
          return td;
        }));
      this.shown.set(key, row);
      return made;
    });
    const held = [...this.body.children].indexOf(document.activeElement);
    this.body.replaceChildren(...rows);
    if (held >= 0 && rows.length) rows[Math.min(held, rows.length - 1)].focus();
    if (!rows.length) this.body.append(el("tr", {}, el("td", { class: "soft", colspan: columns.length }, this.asked.search ? "No row holds that." : "No rows.")));
    const last = page.offset + page.rows.length;
    this.counted.textContent = page.total ? `${number(page.offset + 1)}–${number(last)} of ${number(page.total)}` : "0 rows";
    this.back.disabled = page.offset === 0;
    this.on.disabled = last >= page.total;
  }

  head(columns) {
    if (this.sorted === `${this.asked.sort} ${this.asked.descending}`) return;
    this.sorted = `${this.asked.sort} ${this.asked.descending}`;
    this.heads.replaceChildren(...columns.map((c) => {
      const here = this.asked.sort === c.name;
      const turned = () => this.ask(here && this.asked.descending ? { sort: "", descending: false, offset: 0 } : { sort: c.name, descending: here, offset: 0 });
      return el("th", { scope: "col", class: isNumber(c.type) ? "number" : null, "aria-sort": here ? (this.asked.descending ? "descending" : "ascending") : null, title: c.type },
        c.masked ? el("span", { title: "personal data: it has a name of its own here; --reveal shows it" }, c.name) : el("button", { type: "button", onclick: turned }, c.name));
    }));
  }

  step(event, row) {
    const here = event.currentTarget;
    const next = { ArrowDown: here.nextElementSibling, ArrowUp: here.previousElementSibling }[event.key];
    if (event.key === "Enter") this.open(row);
    else if (next) next.focus();
    else return;
    event.preventDefault();
  }
}

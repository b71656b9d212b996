// Dead letters and late rows: what was refused, why, and what can be done with it.

import { cell, el, get, number, post, told } from "./dom.js";

const COLUMNS = ["source", "rule", "field", "got", "reason", "status", "epoch", "partition", "offset"];

export class Letters {
  constructor(picture, drawer) {
    this.drawer = drawer;
    this.offset = 0;
    this.chosen = new Set();
    this.message = el("div");
    this.body = el("tbody");
    this.counted = el("span", { class: "soft", role: "status" });
    const sources = picture.items.filter((i) => ["stream", "table", "reference"].includes(i.kind)).map((i) => i.name);
    this.source = choice("Source", [["", "all sources"], ...sources.map((s) => [s, s])], () => this.first());
    this.status = choice("Status", [["dead", "dead"], ["", "any status"], ["replayed", "replayed"], ["dropped", "dropped"]], () => this.first());
    this.replay = el("button", { type: "button", onclick: () => this.act("dlq.replay", "will be judged again") }, "Replay");
    this.drop = el("button", { type: "button", onclick: () => this.act("dlq.drop", "dropped") }, "Drop");
    this.back = el("button", { type: "button", onclick: () => this.move(-100) }, "Back");
    this.on = el("button", { type: "button", onclick: () => this.move(100) }, "Next");
    this.all = el("input", { type: "checkbox", "aria-label": "Choose all rows of this page", onchange: (e) => this.chooseAll(e.target.checked) });
    this.root = el("div", {},
      el("div", { class: "bar" }, el("h2", {}, "Dead letters"), this.source, this.status, el("span", { class: "grow" }), this.counted, this.back, this.on, this.replay, this.drop),
      this.message,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Dead letters" }, el("table", {},
        el("thead", {}, el("tr", {}, el("th", { scope: "col" }, this.all), COLUMNS.map((c) => el("th", { scope: "col" }, c)))), this.body)));
    this.draw();
  }

  first() {
    this.offset = 0;
    this.chosen.clear();
    this.draw();
  }

  move(rows) {
    this.offset = Math.max(0, this.offset + rows);
    this.draw();
  }

  async draw() {
    try {
      const query = new URLSearchParams({ source: this.source.value, status: this.status.value, offset: this.offset });
      const found = await get(`/api/letters?${query}`);
      this.letters = found.letters.slice(0, 100);
      this.show(found);
    } catch (problem) {
      this.message.replaceChildren(told(problem.message));
    }
  }

  show(found) {
    this.body.replaceChildren(...this.letters.map((letter) => el("tr", { class: "open", onclick: (e) => { if (e.target.type !== "checkbox") this.open(letter); } },
      el("td", {}, el("input", { type: "checkbox", checked: this.chosen.has(letter.id), "aria-label": `Choose letter ${letter.id}`, onchange: (e) => this.choose(letter.id, e.target.checked) })),
      COLUMNS.map((c, i) => i ? cell(letter[c]) : el("td", {}, el("button", { type: "button", class: "quiet", onclick: (e) => { e.stopPropagation(); this.open(letter); } }, letter.source))))));
    if (!this.letters.length) this.body.append(el("tr", {}, el("td", { class: "soft", colspan: COLUMNS.length + 1 }, "None: every record kept its contract.")));
    const last = this.offset + this.letters.length;
    this.counted.textContent = found.total ? `${number(this.offset + 1)}–${number(last)} of ${number(found.total)}` : "0 letters";
    this.back.disabled = this.offset === 0;
    this.on.disabled = last >= found.total;
    this.buttons();
  }

  buttons() {
    const n = this.chosen.size;
    this.replay.disabled = this.drop.disabled = n === 0;
    this.replay.textContent = n ? `Replay ${n}` : "Replay";
    this.drop.textContent = n ? `Drop ${n}` : "Drop";
  }

  choose(name, wanted) {
    if (wanted) this.chosen.add(name); else this.chosen.delete(name);
    this.buttons();
  }

  chooseAll(wanted) {
    for (const letter of this.letters) if (wanted) this.chosen.add(letter.id); else this.chosen.delete(letter.id);
    this.draw();
  }

  async act(verb, says) {
    try {
      const reply = await post(`/api/do/${verb}`, { ids: [...this.chosen] });
      this.message.replaceChildren(told(`${reply.requested ?? reply.dropped} ${says}.`, "right"));
      this.chosen.clear();
      this.all.checked = false;
      await this.draw();
    } catch (problem) {
      this.message.replaceChildren(told(problem.message));
    }
  }

  open(letter) {
    const facts = Object.entries(letter).filter(([k]) => !["value", "reason"].includes(k));
    this.drawer.root.replaceChildren(
      el("div", { class: "head" }, el("h2", { id: "drawer-title" }, `Dead letter ${letter.id}`), el("button", { type: "button", onclick: () => this.drawer.root.close() }, "Close")),
      told(letter.reason),
      el("section", { class: "sheet" }, el("dl", { class: "facts" }, facts.map(([k, v]) => el("div", {}, el("dt", {}, k), el("dd", {}, v === null ? "–" : String(v)))))),
      el("h3", {}, "The record as it came"), el("pre", {}, letter.value ?? "none"));
    this.drawer.item = null;
    this.drawer.root.showModal();
  }
}

export class Late {
  constructor(picture) {
    this.message = el("div");
    this.body = el("div");
    const streams = picture.items.filter((i) => i.kind === "stream").map((i) => i.name);
    this.source = choice("Stream", streams.map((s) => [s, s]), () => this.draw());
    this.apply = el("button", { type: "button", disabled: true, onclick: () => this.act() }, "Apply as corrections");
    this.root = el("div", {}, el("div", { class: "bar" }, el("h2", {}, "Late rows"), streams.length > 1 ? this.source : null, el("span", { class: "grow" }), this.apply), this.message, this.body);
    if (streams.length) this.draw(); else this.body.append(el("p", { class: "soft" }, "The pipeline has no stream."));
  }

  async draw() {
    try {
      const found = await get(`/api/late?source=${encodeURIComponent(this.source.value)}`);
      this.message.replaceChildren();
      const waiting = found.columns.indexOf("status");
      this.apply.disabled = !found.rows.some((r) => r[waiting] === "late");
      this.body.replaceChildren(found.rows.length ? el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Late rows" }, el("table", {},
        el("caption", {}, `${number(found.rows.length)} of ${number(found.total)}`),
        el("thead", {}, el("tr", {}, found.columns.map((c) => el("th", { scope: "col" }, c)))),
        el("tbody", {}, found.rows.map((row) => el("tr", {}, row.map((v) => cell(v))))))) : el("p", { class: "soft" }, "None: no row came after its window had closed."));
    } catch (problem) {
      this.apply.disabled = true;
      this.message.replaceChildren(told(problem.message, "wait"));
      this.body.replaceChildren();
    }
  }

  async act() {
    try {
      const reply = await post("/api/do/late.apply", { source: this.source.value });
      this.message.replaceChildren(told(`${reply.requested} will be applied.`, "right"));
      setTimeout(() => this.draw(), 1000);
    } catch (problem) {
      this.message.replaceChildren(told(problem.message));
    }
  }
}

function choice(label, values, changed) {
  return el("select", { "aria-label": label, onchange: changed }, values.map(([value, text]) => el("option", { value }, text)));
}

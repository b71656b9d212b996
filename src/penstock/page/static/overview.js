// The overview: figures, the graph of the pipeline, and plots of the last minutes.

import { el, number, placed, span, svg } from "./dom.js";

const WIDE = 184, HIGH = 50, ACROSS = 250, DOWN = 62;
const KINDS = ["stream", "table", "view", "step", "sink"];
const PLOTS = [
  ["rows_per_s", "Throughput", (v) => `${number(v)} rows/s`],
  ["lag", "Lag", (v) => `${number(v)} rows not read`],
  ["epoch_ms", "Epoch, reading to commit", (v) => `${number(v, 1)} ms`],
  ["behind_s", "Watermark behind the clock", span],
];

export class Overview {
  constructor(picture, pulse) {
    this.picture = picture;
    this.before = null;
    this.samples = [];
    this.tiles = el("dl", { class: "tiles" });
    this.alerts = el("div");
    this.nodes = new Map();
    this.lines = [];
    this.plots = el("div", { class: "plots" });
    this.root = el("div", {}, this.alerts, this.tiles,
      el("section", { class: "sheet", "aria-label": "Graph" }, this.graph(), this.legend()),
      el("section", { class: "sheet", "aria-label": "The last minutes" }, this.plots));
    this.tell(pulse);
  }

  graph() {
    const items = this.picture.items;
    const wide = Math.max(...items.map((i) => i.layer)) * ACROSS + WIDE + 8;
    const high = (Math.max(...items.map((i) => i.row)) + 1) * DOWN;
    const lines = svg("svg", { width: wide, height: high, "aria-hidden": true });
    const canvas = placed(el("div", { class: "canvas" }, lines), { width: `${wide}px`, height: `${high}px` });
    const by = new Map(items.filter((i) => i.kind !== "sink").map((i) => [i.name, i]));
    for (const item of items) {
      for (const below of item.reads) {
        const from = by.get(below), x = from.layer * ACROSS + WIDE, y = from.row * DOWN + HIGH / 2;
        const to = item.layer * ACROSS, end = item.row * DOWN + HIGH / 2, middle = (x + to) / 2;
        const line = svg("path", { d: `M${x} ${y}C${middle} ${y} ${middle} ${end} ${to} ${end}` });
        this.lines.push([line, below, id(item)]);
        lines.append(line);
      }
      const says = el("span", {}, item.detail || item.kind);
      const node = el("a", {
        class: `node ${item.kind}`, href: item.kind === "sink" ? `#/item/${encodeURIComponent(item.reads[0])}` : `#/item/${encodeURIComponent(item.name)}`,
        title: `${item.kind} ${item.name}`,
        onmouseenter: () => this.light(id(item)), onmouseleave: () => this.light(null),
        onfocus: () => this.light(id(item)), onblur: () => this.light(null),
      }, el("b", {}, item.name), says);
      placed(node, { left: `${item.layer * ACROSS}px`, top: `${item.row * DOWN}px` });
      this.nodes.set(id(item), { item, node, says });
      canvas.append(node);
    }
    return el("div", { class: "graph", tabindex: "-1" }, canvas);
  }

  legend() {
    return el("ul", { class: "legend" }, KINDS.map((k) => el("li", { class: k }, k === "table" ? "table, reference" : k)));
  }

  // All that an item reads, and all that reads it.
  light(name) {
    const lit = new Set(name === null ? this.nodes.keys() : [name]);
    const spread = (from, to) => {
      const waiting = [name];
      while (waiting.length) {
        const here = waiting.pop();
        for (const line of this.lines) if (line[from] === here && !lit.has(line[to])) { lit.add(line[to]); waiting.push(line[to]); }
      }
    };
    if (name !== null) { spread(2, 1); const up = [...lit]; lit.clear(); lit.add(name); spread(1, 2); up.forEach((n) => lit.add(n)); }
    for (const [key, { node }] of this.nodes) node.classList.toggle("dim", !lit.has(key));
    for (const [line, below, above] of this.lines) line.classList.toggle("lit", name !== null && lit.has(below) && lit.has(above));
  }

  remember(samples) {
    this.samples = samples;
    this.draw();
  }

  tell(pulse) {
    const running = pulse.state === "running";
    const rates = this.rates(pulse);
    const tiles = [
      ["Rows in", number(pulse.rows), running ? `${number(pulse.rows_per_s)} a second` : ""],
      ["Lag", running ? number(pulse.lag) : "–", running ? "rows not read" : ""],
      ["Epoch", number(pulse.epoch), running ? `${number(pulse.epoch_ms, 1)} ms` : ""],
      ["Watermark", pulse.watermark ? pulse.watermark.slice(11, 19) : "–", running && pulse.behind_s !== null && pulse.behind_s !== undefined ? `${span(pulse.behind_s)} behind` : (pulse.watermark ?? "").slice(0, 10)],
      ["Dead letters", number(pulse.dead), ""],
      ["Late rows", number(pulse.late), ""],
    ];
    this.tiles.replaceChildren(...tiles.map(([name, value, more]) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, value, " ", el("small", {}, more)))));
    this.alerts.replaceChildren(...(pulse.alerts ?? []).slice(-3).map((a) => el("div", { class: "told", role: "status" }, el("p", {}, a))));
    for (const { item, says } of this.nodes.values()) says.textContent = this.says(item, pulse, rates);
    if (running) {
      this.samples.push({ at: pulse.at, ...Object.fromEntries(PLOTS.map(([k]) => [k, pulse[k]])) });
      if (this.samples.length > 600) this.samples.shift();
    }
    this.draw();
  }

  // Rows a second of each source and sink since the sample before.
  rates(pulse) {
    const counts = new Map();
    for (const [name, s] of Object.entries(pulse.sources ?? {})) counts.set(name, s.rows);
    for (const [name, s] of Object.entries(pulse.sinks ?? {})) counts.set(`sink ${name}`, s.delivered_rows);
    const before = this.before;
    this.before = { at: pulse.at, counts };
    if (!before || pulse.state !== "running" || pulse.at <= before.at) return new Map();
    return new Map([...counts].map(([k, n]) => [k, (n - (before.counts.get(k) ?? n)) / (pulse.at - before.at)]));
  }

  says(item, pulse, rates) {
    if (item.kind === "sink") {
      const sink = (pulse.sinks ?? {})[item.name];
      return sink ? `${number(sink.delivered_rows)} delivered · ${number(rates.get(`sink ${item.name}`) ?? 0)}/s${sink.waiting_epochs ? ` · ${sink.waiting_epochs} epochs wait` : ""}` : item.detail;
    }
    const source = (pulse.sources ?? {})[item.name];
    if (source) {
      const parts = [`${number(source.rows)} rows`];
      if (rates.has(item.name)) parts.push(`${number(rates.get(item.name))}/s`);
      if (source.lag) parts.push(`lag ${number(source.lag)}`);
      if (source.dead) parts.push(`${number(source.dead)} dead`);
      return parts.join(" · ");
    }
    const rows = item.tables.reduce((sum, t) => sum + ((pulse.sizes ?? {})[t] ?? 0), 0);
    return item.tables.length ? `${number(rows)} rows of state` : "rows pass through";
  }

  draw() {
    this.plots.replaceChildren(...PLOTS.map(([key, title, say]) => plot(title, this.samples.filter((s) => s[key] !== null && s[key] !== undefined).map((s) => [s.at, s[key]]), say)));
  }
}

function id(item) {
  return item.kind === "sink" ? `sink ${item.name}` : item.name;
}

function plot(title, points, say) {
  const last = points.at(-1);
  const caption = el("figcaption", {}, el("span", {}, title), el("b", {}, last ? say(last[1]) : "–"));
  if (points.length < 2) return el("figure", { class: "plot" }, caption, el("p", {}, "drawn while a job runs"));
  const [first, end] = [points[0][0], last[0]];
  const top = Math.max(...points.map((p) => p[1])), low = Math.min(0, ...points.map((p) => p[1]));
  const at = ([t, v]) => `${(((t - first) / (end - first || 1)) * 600).toFixed(1)} ${(100 - ((v - low) / (top - low || 1)) * 96).toFixed(1)}`;
  const line = points.map(at).join("L");
  return el("figure", { class: "plot" }, caption,
    svg("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none", role: "img", "aria-label": `${title}: now ${say(last[1])}, at most ${say(top)}` },
      svg("path", { class: "area", d: `M0 100L${line}L600 100Z` }), svg("path", { class: "line", d: `M${line}` })),
    el("p", {}, el("span", {}, `${span(end - first)} ago`), el("span", {}, `at most ${say(top)}`), el("span", {}, "now")));
}

// The page: which part is shown, and the stream of what the pipeline does.

import { el, get, number, told } from "./dom.js";
import { Drawer } from "./drawer.js";
import { Late, Letters } from "./letters.js";
import { Overview } from "./overview.js";
import { Table } from "./table.js";

const main = document.querySelector("#main");
const badge = document.querySelector("#state");
let picture, drawer, part = null, pulse = { state: "starting" }, epoch = null, busy = false;

async function start() {
  theme();
  try {
    picture = await get("/api/picture");
  } catch (problem) {
    main.replaceChildren(told(problem.message));
    return;
  }
  document.title = `${picture.pipeline} · Penstock`;
  document.querySelector("#pipeline").textContent = picture.pipeline;
  drawer = new Drawer(document.querySelector("#drawer"), picture);
  addEventListener("hashchange", route);
  addEventListener("keydown", (e) => {
    const search = main.querySelector("input[type=search]");
    if (e.key === "/" && search && !(e.target instanceof HTMLInputElement)) { e.preventDefault(); search.focus(); }
  });
  listen();
  route();
}

function listen() {
  const events = new EventSource("/api/events");
  events.onmessage = (event) => tell(JSON.parse(event.data));
  events.onerror = () => { badge.textContent = "page lost: is it still served?"; badge.className = "badge lost"; };
}

function tell(found) {
  pulse = found;
  const says = { running: `running · epoch ${number(found.epoch)}`, stopped: `stopped · epoch ${number(found.epoch)}`, unreachable: "starting or stopping" }[found.state] ?? "connecting";
  badge.textContent = says;
  badge.className = `badge ${found.state}`;
  badge.title = found.problem?.message ?? (found.pid ? `pid ${found.pid}` : "");
  document.querySelector("#dead").textContent = found.dead ? number(found.dead) : "";
  document.querySelector("#late").textContent = found.late ? number(found.late) : "";
  if (part instanceof Overview) part.tell(found);
  if (found.epoch !== epoch) { epoch = found.epoch; refresh(); }
}

// A table that is looked at follows the commits; a slow answer is waited for, not piled upon.
async function refresh() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    if (part instanceof Table) await part.draw(true);
    await drawer.again();
  } finally {
    busy = false;
  }
}

async function route() {
  const [path, query] = location.hash.slice(1).split("?");
  const [, where = "", name = ""] = path.split("/").map(decodeURIComponent);
  const item = picture.items.find((i) => i.name === name && i.kind !== "sink");
  if (drawer.root.open) drawer.root.close();
  for (const link of document.querySelectorAll("nav a")) {
    const own = link.getAttribute("href").slice(2);
    if (own === where || (own === "tables" && ["table", "item"].includes(where))) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (where === "letters") show(new Letters(picture, drawer));
  else if (where === "late") show(new Late(picture));
  else if (where === "tables") show(null, el("h2", {}, "Tables"), chips(""), el("p", { class: "soft" }, "Choose a view, a step or a source that keeps its rows."));
  else if (where === "table" && item?.kept) table(item, query);
  else if ((where === "item" || where === "table") && item) show(null, chips(item.name), about(item));
  else if (where === "") { show(new Overview(picture, pulse)); const overview = part; get("/api/history").then((h) => overview.remember(h)).catch(() => null); }
  else show(null, told(`There is nothing of the name ${name || where}.`));
}

function show(made, ...others) {
  part = made;
  main.replaceChildren(...(made ? [made.root] : []), ...others);
}

function table(item, query) {
  const given = new URLSearchParams(query ?? "");
  const asked = { sort: given.get("sort") ?? "", descending: given.get("descending") === "true", search: given.get("search") ?? "", offset: Number(given.get("offset") ?? 0) };
  const note = (now) => {
    const kept = new URLSearchParams(Object.entries(now).filter(([k, v]) => v && k !== "limit").map(([k, v]) => [k, v]));
    history.replaceState(null, "", `#/table/${encodeURIComponent(item.name)}${kept.size ? `?${kept}` : ""}`);
  };
  part = new Table(item, asked, note, (row) => drawer.open(item, row));
  main.replaceChildren(chips(item.name), part.root, el("details", { class: "sheet" }, el("summary", {}, "About this table"), about(item)));
}

function chips(current) {
  // What is delivered first: it is what the pipeline is for.
  const delivered = new Set(picture.items.filter((i) => i.kind === "sink").flatMap((i) => i.reads));
  const kept = picture.items.filter((i) => i.kept && i.kind !== "sink").sort((a, b) => delivered.has(b.name) - delivered.has(a.name));
  return el("ul", { class: "chips" }, kept.map((i) => el("li", {}, el("a", { class: i.kind, href: `#/table/${encodeURIComponent(i.name)}`, "aria-current": i.name === current ? "page" : null }, i.name))));
}

function about(item) {
  const link = (n) => el("a", { href: `#/item/${encodeURIComponent(n)}` }, n);
  const used = picture.items.filter((i) => i.reads.includes(item.name));
  const list = (items) => items.flatMap((i, n) => (n ? [", ", i] : [i]));
  const facts = [
    ["kind", item.kind], ["", item.detail], ["key", item.key.join(", ")],
    ["reads", list(item.reads.map(link))], ["is read by", list(used.map((i) => i.kind === "sink" ? `sink ${i.name}` : link(i.name)))],
    ["state is bounded by", item.bound.join("; ")], ["kept up to date by", item.blocks.join("; ")],
  ].filter(([, v]) => v.length);
  return el("section", { class: "sheet" },
    el("h2", {}, item.name),
    item.kept ? el("p", {}, el("a", { href: `#/table/${encodeURIComponent(item.name)}` }, "See its rows")) : el("p", { class: "soft" }, "Its rows pass through: they are not kept."),
    el("dl", { class: "facts" }, facts.map(([k, v]) => el("div", {}, el("dt", {}, k || "about"), el("dd", {}, v)))),
    el("h3", {}, "Columns"), el("p", { class: "soft" }, item.columns.map((c) => `${c.name} ${c.type}${c.masked ? " (masked)" : ""}`).join(", ")),
    item.sql ? el("div", {}, el("h3", {}, "SQL"), el("pre", {}, item.sql)) : null);
}

function theme() {
  const root = document.documentElement;
  const kept = localStorage.getItem("theme");
  if (kept) root.dataset.theme = kept;
  document.querySelector("#theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
  });
}

start();

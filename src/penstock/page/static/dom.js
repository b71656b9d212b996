// Elements, figures and requests: what every part of the page uses.

// An element with attributes, listeners (on...) and children; texts are texts, never markup.
export function el(name, given = {}, ...children) {
  const made = document.createElement(name);
  fill(made, given, children);
  return made;
}

export function svg(name, given = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  fill(made, given, children);
  return made;
}

function fill(made, given, children) {
  for (const [key, value] of Object.entries(given)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
}

// Places are set by script, which the page's policy allows where it refuses a style attribute.
export function placed(made, places) {
  for (const [key, value] of Object.entries(places)) made.style[key] = value;
  return made;
}

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en", { maximumFractionDigits: digits });
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const sign = seconds < 0 ? "−" : "", s = Math.abs(seconds);
  if (s < 120) return `${sign}${s.toFixed(1)} s`;
  if (s < 7200) return `${sign}${Math.round(s / 60)} min`;
  return s < 172800 ? `${sign}${Math.round(s / 3600)} h` : `${sign}${Math.round(s / 86400)} days`;
}

export class Refused extends Error {}

export async function get(path) {
  return answer(await fetch(path, { headers: { accept: "application/json" } }));
}

export async function post(path, given) {
  return answer(await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(given) }));
}

async function answer(reply) {
  const body = await reply.json();
  if (!reply.ok) {
    const e = body.error ?? { message: `${reply.status}` };
    const rest = [e.expected && `expected ${e.expected}`, e.got && `got ${e.got}`, e.hint].filter(Boolean).join("; ");
    throw new Refused([e.code, e.message, rest].filter(Boolean).join(": "));
  }
  return body;
}

export function told(text, kind = "wrong") {
  return el("div", { class: `told ${kind}`, role: kind === "wrong" ? "alert" : "status" }, el("p", {}, text));
}

export function isNumber(type) {
  return /^(U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|DECIMAL|DOUBLE|FLOAT)/.test(type) && !type.endsWith("]");
}

// A value of a cell: what it shows, and how.
export function cell(value, column) {
  if (value === null) return el("td", { class: "null" }, "null");
  if (column && isNumber(column.type)) {
    const exact = typeof value === "number" ? value.toLocaleString("en", { maximumFractionDigits: 6 }) : grouped(String(value));
    return el("td", { class: exact.startsWith("-") ? "number down" : "number" }, exact);
  }
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return el("td", { title: text.length > 40 ? text : null }, text);
}

// Thousands of a decimal text, whose digits stay as they are.
function grouped(text) {
  const found = /^(-?)(\d+)(\.\d+)?$/.exec(text);
  return found ? found[1] + found[2].replace(/\B(?=(\d{3})+$)/g, ",") + (found[3] ?? "") : text;
}

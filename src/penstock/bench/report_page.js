// A cursor for every chart: pointer or arrow keys choose a row of the chart's table, which is said below the chart.
for (const chart of document.querySelectorAll("figure.chart")) {
  const area = chart.querySelector(".area");
  const rows = [...chart.querySelectorAll(".values tbody tr")];
  const heads = [...chart.querySelectorAll(".values thead th")].map((head) => head.textContent);
  const readout = chart.querySelector(".readout");
  if (!area || !rows.length) continue;
  const places = area.dataset.places ? area.dataset.places.split(" ").map(Number) : rows.map((_, i) => (i + 0.5) / rows.length);
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  cursor.hidden = true;
  area.append(cursor);
  area.tabIndex = 0;
  area.setAttribute("role", "slider");
  area.setAttribute("aria-label", `${chart.querySelector("h3").textContent}: move along the chart`);
  area.setAttribute("aria-valuemin", "0");
  area.setAttribute("aria-valuemax", String(rows.length - 1));
  let at = 0;
  const show = (index) => {
    at = Math.min(rows.length - 1, Math.max(0, index));
    cursor.hidden = false;
    cursor.style.left = `${places[at] * 100}%`;
    const text = [...rows[at].cells].map((cell, i) => `${heads[i]} ${cell.textContent}`).join("; ");
    readout.textContent = text;
    area.setAttribute("aria-valuenow", String(at));
    area.setAttribute("aria-valuetext", text);
  };
  area.setAttribute("aria-valuenow", "0");
  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    show(places.reduce((best, place, i) => (Math.abs(place - share) < Math.abs(places[best] - share) ? i : best), 0));
  });
  area.addEventListener("focus", () => show(at));
  area.addEventListener("keydown", (event) => {
    const large = Math.max(1, Math.round(rows.length / 10));
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageUp: at + large, PageDown: at - large, Home: 0, End: rows.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(to);
  });
}

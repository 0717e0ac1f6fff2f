"use strict";
// Values under the pointer: each chart carries the numbers that it draws.
const said = (value) => Number(value.toPrecision(4)).toLocaleString("en");
for (const chart of document.querySelectorAll("svg[data-hover]")) {
  const { right, series } = JSON.parse(chart.dataset.hover);
  const cursor = chart.querySelector(".cursor");
  const readout = chart.closest("figure").querySelector(".readout");
  const show = (event) => {
    const box = chart.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const at = share * right;
    const parts = [];
    for (const one of series) {
      let best = 0;
      for (let i = 1; i < one.x.length; i++) if (Math.abs(one.x[i] - at) < Math.abs(one.x[best] - at)) best = i;
      const apart = Math.abs(one.x[best] - at);
      const sparse = one.kind === "dots" || one.kind === "rings";
      if (apart > right * (sparse ? 0.05 : 0.02)) continue;
      let text = `${one.name} ${said(one.y[best])}`;
      if (one.low) text += ` [${said(one.low[best])}, ${said(one.high[best])}]`;
      parts.push(sparse ? `${text} at ${said(one.x[best])}` : text);
    }
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, `${100 * share}%`);
    cursor.setAttribute("visibility", "visible");
    readout.textContent = `${said(at)} ${chart.dataset.x}: ${parts.join(" · ") || "nothing"}`;
  };
  chart.addEventListener("pointermove", show);
  chart.addEventListener("pointerdown", show);
  chart.addEventListener("pointerleave", () => cursor.setAttribute("visibility", "hidden"));
}

// A page that is renewed: reload, but not while a film plays; what was unfolded stays so.
const every = Number(document.documentElement.dataset.renewed);
if (every) {
  const folds = [...document.querySelectorAll("details[id]")];
  const before = (history.state || {}).open;
  if (before) for (const fold of folds) fold.open = before.includes(fold.id);
  setInterval(() => {
    if ([...document.querySelectorAll("video")].some((film) => !film.paused)) return;
    history.replaceState({ open: folds.filter((fold) => fold.open).map((fold) => fold.id) }, "");
    location.reload();
  }, every * 1000);
}

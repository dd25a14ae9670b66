"use strict";
// Curves of a training, one chart each.
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];
const narrow = window.matchMedia("(max-width: 600px)").matches;
const escaped = (text) => text.slice(0, 60).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const axis = { gridcolor: "#dcdcdc", linecolor: "#555", zeroline: false, automargin: true, ticks: "outside" };

function show(name, title, data, y, log = false) {
  document.getElementById(`title-${name}`).textContent = data.length ? title : "Nothing to draw";
  const place = document.getElementById(`chart-${name}`);
  if (!data.length) {
    place.textContent = "Nothing of this was recorded.";
    return;
  }
  place.setAttribute("aria-label", title);
  Plotly.newPlot(place, data, {
    height: 340, font: { size: narrow ? 12 : 14, color: "#1a1a1a" }, margin: { l: 56, r: 16, t: 12, b: 48 }, hovermode: "closest",
    xaxis: { ...axis, title: { text: "round (count)" }, rangemode: "tozero" }, yaxis: { ...axis, title: { text: narrow ? y.replace(" (", "<br>(") : y }, type: log ? "log" : "linear" },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom" }, showlegend: data.some((trace) => trace.name),
  }, { responsive: true, displaylogo: false, displayModeBar: false });
}

for (const chart of DATA.charts) {
  const data = [];
  if (chart.x.length) {
    const band = chart.low.some((low, place) => low !== chart.high[place]);
    if (band) {
      data.push({ x: [...chart.x, ...[...chart.x].reverse()], y: [...chart.high, ...[...chart.low].reverse()], fill: "toself", fillcolor: "#0072B233", line: { width: 0 }, mode: "lines", hoverinfo: "skip", name: "smallest to largest" });
    }
    data.push({ x: chart.x, y: chart.y, mode: "lines", line: { color: "#0072B2", width: 1.8 }, name: band ? "mean" : "", hovertemplate: "round %{x:.0f}: %{y:.4g}<extra></extra>" });
  }
  const ends = chart.x.length ? `from ${Number(chart.y[0].toPrecision(3))} to ${Number(chart.y.at(-1).toPrecision(3))}` : "";
  show(chart.name, `The ${chart.word} goes ${ends} over ${DATA.rounds} rounds`, data, chart.axis, chart.log);
}

const traces = DATA.validation.map((domain, place) => {
  const points = domain.points.map(([round, accuracy]) => [round, accuracy, 0]);
  if (domain.final) points.push([DATA.rounds, ...domain.final]);
  return {
    type: "scatter", mode: "lines+markers", name: escaped(domain.name), x: points.map((p) => p[0]), y: points.map((p) => p[1]),
    error_y: { type: "data", array: points.map((p) => p[2]), thickness: 1.5, width: 4 },
    line: { color: COLOURS[place % COLOURS.length] }, marker: { size: 9, symbol: SYMBOLS[place % SYMBOLS.length], color: COLOURS[place % COLOURS.length] },
    hovertemplate: "%{fullData.name}, round %{x}: %{y:.1f} %<extra></extra>",
  };
});
const last = DATA.validation.filter((domain) => domain.final);
show("validation", last.length
  ? `Held-out accuracy ends at ${last.map((domain) => `${domain.final[0].toFixed(1)} % on ${domain.name}`).join(", ")}`
  : `Held-out accuracy of ${DATA.validation.length} domains`, traces, "held-out query accuracy (%)");

const ends = DATA.by_domain.map((domain) => `${domain.points.at(-1)[1].toFixed(1)} % on ${domain.name}`);
show("domains", `Training accuracy is ${ends.join(", ")} in the last stretch of rounds`, DATA.by_domain.map((domain, place) => ({
  type: "scatter", mode: "lines+markers", name: escaped(domain.name), x: domain.points.map((p) => p[0]), y: domain.points.map((p) => p[1]),
  customdata: domain.points.map((p) => p[4]),
  error_y: {
    type: "data", array: domain.points.map((p) => (p[3] === null ? 0 : p[3] - p[1])),
    arrayminus: domain.points.map((p) => (p[2] === null ? 0 : p[1] - p[2])), thickness: 1.5, width: 3,
  },
  line: { color: COLOURS[place % COLOURS.length], width: 1.5 }, marker: { size: 6, symbol: SYMBOLS[place % SYMBOLS.length], color: COLOURS[place % COLOURS.length] },
  hovertemplate: "%{fullData.name}, around round %{x:.0f}: %{y:.1f} % (%{customdata} episodes)<extra></extra>",
})), "query accuracy of the training episodes (%)");

window.matchMedia("print").addEventListener("change", (event) => {
  for (const chart of document.querySelectorAll(".chart.js-plotly-plot")) Plotly.relayout(chart, event.matches ? { width: 680 } : { width: null, autosize: true });
  if (event.matches) for (const details of document.querySelectorAll("details")) details.open = true;
});
document.body.dataset.drawn = "1";

"use strict";
// What is shown, and the figures it is drawn from. Places are positions in the lists of DATA.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ALL = -2, NO_DEVICE = -1;
const state = { domain: ALL, device: ALL, methods: new Set(DATA.methods.map((_, place) => place)) };
const narrow = window.matchMedia("(max-width: 600px)").matches;

const cut = (text, limit = 48) => (text.length > limit ? text.slice(0, limit - 3) + "..." : text);
/** A name as chart text: Plotly reads markup there, so it is escaped. */
const chartText = (text, limit) =>
  cut(text, limit).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const number = (value, digits = 1) => (value === null || value === undefined ? "-" : value.toFixed(digits));
const significant = (value) =>
  value === null || value === undefined ? "-" : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
const signed = (value) => (value >= 0 ? "+" : "") + value.toFixed(1);
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

const methodName = (place) => DATA.methods[place].label;
const domainName = (place) => (place === ALL ? "all domains" : DATA.domains[place]);
const deviceName = (place) =>
  place === ALL ? (DATA.devices.length === 1 ? DATA.devices[0] : "all devices") : place === NO_DEVICE ? "no device" : DATA.devices[place];

const onDomain = (item) => item.d === state.domain;
const onDevice = (item) => state.device === ALL || item.v === state.device;
const onMethod = (item) => state.methods.has(item.m);

/** Cells of the chosen domain, device and methods, one device at a time; methods without a device are always there. */
function shownCells() {
  return DATA.cells.filter(
    (cell) => onDomain(cell) && onMethod(cell) && cell.v !== ALL && (cell.v === NO_DEVICE || onDevice(cell)),
  );
}

/** The one figure of a method on a domain: of the chosen device, or each task averaged over all devices. */
function oneOf(items, domain, method) {
  const here = items.filter((item) => item.d === domain && item.m === method);
  const wanted = state.device !== ALL ? state.device : DATA.devices.length === 1 ? 0 : ALL;
  return here.find((item) => item.v === wanted) || here.find((item) => item.v === NO_DEVICE);
}

function shownDomains() {
  return state.domain === ALL ? DATA.domains.map((_, place) => place) : [state.domain];
}

function shownDevices() {
  return state.device === ALL ? DATA.devices.map((_, place) => place) : [state.device];
}

function shownMethods() {
  return DATA.methods.map((_, place) => place).filter((place) => state.methods.has(place));
}

function whereText() {
  return `${domainName(state.domain)}, ${deviceName(state.device)}`;
}

/** Names of places, or how many there are of them. */
function listed(places, name, word, total) {
  const names = [...new Set(places)].map(name);
  if (names.length === total && total > 1) return `every ${word}`;
  return names.length > 3 ? `${names[0]} and ${names.length - 1} more ${word}s` : names.join(", ");
}

const AXIS = { gridcolor: "#dcdcdc", linecolor: "#555", zeroline: false, automargin: true, ticks: "outside" };

/** An axis title in two lines where one would be cut. */
const axisTitle = (text) => ({ text: narrow ? text.replace(" (", "<br>(") : text, font: { size: narrow ? 12 : 14 } });

/** A legend entry in a method's own look, whatever its marks look like. */
const legendOf = (method) => ({
  type: "scatter", mode: "markers", name: chartText(DATA.methods[method].label), x: [null], y: [null], legendgroup: String(method), showlegend: true,
  marker: { size: 10, color: DATA.methods[method].colour, symbol: DATA.methods[method].symbol },
});

function layoutOf(x, y, height, extra = {}) {
  return {
    height,
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: narrow ? 12 : 14, color: "#1a1a1a" },
    paper_bgcolor: "#fff",
    plot_bgcolor: "#fff",
    margin: { l: narrow ? 40 : 56, r: 16, t: 12, b: 56 },
    showlegend: true,
    hovermode: "closest",
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", traceorder: "normal" },
    xaxis: { ...AXIS, ...x },
    yaxis: { ...AXIS, ...y },
    ...extra,
  };
}

/** Ends of an interval as Plotly's error bars; null where an end is unknown. */
function bars(middles, lows, highs) {
  return {
    type: "data",
    symmetric: false,
    array: middles.map((middle, place) => (highs[place] === null ? 0 : Math.max(0, highs[place] - middle))),
    arrayminus: middles.map((middle, place) => (lows[place] === null ? 0 : Math.max(0, middle - lows[place]))),
    thickness: 1.5,
    width: 4,
  };
}

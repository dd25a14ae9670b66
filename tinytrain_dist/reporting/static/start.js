// Filters, drawing in steps (the page answers between two charts), figures behind a chart, print.

const CHARTS = {
  devices: deviceChart,
  "front-energy": () => frontChart("energy"),
  "front-time": () => frontChart("time"),
  "front-memory": () => frontChart("memory"),
  spread: spreadChart,
  curves: curveChart,
  "phases-time": () => phaseChart("time"),
  "phases-energy": () => phaseChart("energy"),
  plans: planChart,
  fisher: fisherChart,
};
const PRINT_WIDTH = 680; // pixels that fit on a sheet of A4 or Letter
let turn = 0, paper = false;

function drawChart(name) {
  const place = document.getElementById(`chart-${name}`);
  const drawn = CHARTS[name]();
  document.getElementById(`title-${name}`).textContent = drawn.empty ? "Nothing to draw" : drawn.title;
  const details = document.getElementById(`numbers-${name}`);
  details.hidden = Boolean(drawn.empty);
  details.contents = drawn;
  if (details.open && !drawn.empty) fill(`table-${name}`, drawn.columns, drawn.rows);
  if (drawn.empty) {
    Plotly.purge(place);
    place.textContent = drawn.empty;
    return;
  }
  if (!place.data) place.replaceChildren();
  place.setAttribute("aria-label", `${drawn.title}; the figures follow below the chart`);
  if (paper) drawn.layout.width = PRINT_WIDTH;
  Plotly.react(place, drawn.data, drawn.layout, { responsive: !paper, displaylogo: false, displayModeBar: narrow ? false : "hover" });
}

/** Draw everything; a later choice stops what an earlier one still had to draw. */
function draw() {
  document.body.removeAttribute("data-drawn");
  document.getElementById("shown").textContent =
    `Shown: ${domainName(state.domain)}, ${deviceName(state.device)}, ${plural(state.methods.size, "method")} of ${DATA.methods.length}.`;
  drawTables();
  if (window.Plotly) drawCharts();
}

function drawCharts() {
  const mine = ++turn, waiting = Object.keys(CHARTS);
  const next = () => {
    if (mine !== turn) return;
    if (waiting.length) {
      drawChart(waiting.shift());
      setTimeout(next);
    } else document.body.dataset.drawn = String(mine);
  };
  next();
}

function listen() {
  const choice = (id, name) => document.getElementById(id).addEventListener("change", (event) => {
    state[name] = Number(event.target.value);
    draw();
  });
  choice("filter-domain", "domain");
  choice("filter-device", "device");
  document.getElementById("filter-methods").addEventListener("change", (event) => {
    const method = Number(event.target.value);
    event.target.checked ? state.methods.add(method) : state.methods.delete(method);
    draw();
  });
  document.getElementById("filter-reset").addEventListener("click", () => {
    Object.assign(state, { domain: ALL, device: ALL, methods: new Set(DATA.methods.map((_, place) => place)) });
    for (const box of document.querySelectorAll("#filter-methods input")) box.checked = true;
    for (const id of ["filter-domain", "filter-device"]) document.getElementById(id).value = String(ALL);
    draw();
  });
  for (const name of Object.keys(CHARTS)) {
    document.getElementById(`numbers-${name}`).addEventListener("toggle", (event) => {
      const { open, contents } = event.target;
      if (open && contents && !contents.empty) fill(`table-${name}`, contents.columns, contents.rows);
    });
  }
}

/** Paper has no width to spare and nothing to open: charts take the sheet's width, everything closed is opened. */
function toPaper(on) {
  if (on === paper) return;
  paper = on;
  ++turn; // what is still waiting is drawn here
  for (const details of document.querySelectorAll("details")) {
    if (on) {
      details.dataset.was = details.open ? "open" : "";
      details.open = true;
    } else details.open = details.dataset.was === "open";
  }
  for (const name of Object.keys(CHARTS)) {
    const contents = document.getElementById(`numbers-${name}`).contents;
    drawChart(name);
    if (on && contents && !contents.empty) fill(`table-${name}`, contents.columns, contents.rows);
  }
  document.body.dataset.drawn = String(turn);
}

/** Charts come once their library is there; it takes a second to read, and the page answers meanwhile. */
function start() {
  drawCharts();
  document.body.dataset.charts = String(Math.round(performance.now()));
  window.addEventListener("beforeprint", () => toPaper(true));
  window.addEventListener("afterprint", () => toPaper(false));
  window.matchMedia("print").addEventListener("change", (event) => toPaper(event.matches));
}

/** The library is read beside the page's own work: as a file of its own it is parsed on another thread. */
function loadCharts(nonce) {
  const script = document.createElement("script");
  script.nonce = nonce;
  script.src = URL.createObjectURL(new Blob([document.getElementById("plotly").textContent], { type: "text/javascript" }));
  script.onload = start;
  script.onerror = () => {
    for (const place of document.querySelectorAll(".chart")) place.textContent = "This browser did not load the chart library; the tables hold the figures.";
  };
  document.head.append(script);
}

listen();
draw();
document.body.dataset.interactive = String(Math.round(performance.now()));
{
  const { nonce } = document.currentScript;
  requestAnimationFrame(() => setTimeout(() => loadCharts(nonce))); // what is there is painted first
}

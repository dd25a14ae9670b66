// Charts of cost: what accuracy costs, with the front of undominated choices, and where time and energy go.

const COSTS = {
  energy: { axis: "median energy per task (J, log scale)", unit: "J" },
  time: { axis: "median time per task (s, log scale)", unit: "s" },
  memory: { axis: "median peak memory (KiB, log scale)", unit: "KiB" },
};

/** Choices that no other beats (as cheap, as accurate, and better in one), cheapest first; equal ones both stay. */
function frontOf(points) {
  const sorted = [...points].sort((a, b) => a.cost - b.cost || b.accuracy - a.accuracy);
  const front = [];
  for (const point of sorted) {
    const last = front.at(-1);
    if (!last || point.accuracy > last.accuracy || (point.accuracy === last.accuracy && point.cost === last.cost)) front.push(point);
  }
  return front;
}

/** The choice farthest above the line between the front's ends, cost on a log scale; none for fewer than three. */
function kneeOf(front) {
  const distinct = front.filter((point, place) => !place || point.cost !== front[place - 1].cost || point.accuracy !== front[place - 1].accuracy);
  if (distinct.length < 3) return null;
  const costs = distinct.map((point) => Math.log(Math.max(point.cost, 1e-12)));
  const across = costs.at(-1) - costs[0], up = distinct.at(-1).accuracy - distinct[0].accuracy;
  if (across <= 0 || up <= 0) return null;
  const heights = distinct.map((point, place) => (point.accuracy - distinct[0].accuracy) / up - (costs[place] - costs[0]) / across);
  const best = heights.indexOf(Math.max(...heights));
  return best > 0 && best < distinct.length - 1 && heights[best] > 0 ? distinct[best] : null;
}

function frontChart(name) {
  const { axis, unit } = COSTS[name];
  const cells = shownCells();
  const points = cells
    .filter((cell) => cell.v !== NO_DEVICE && cell.acc && cell[name] && cell[name][0] > 0)
    .map((cell) => ({ cell, cost: cell[name][0], accuracy: cell.acc[0], fits: cell.sure }));
  if (!points.length) return { empty: "Nothing in this choice has this price." };
  const front = frontOf(points.filter((point) => point.fits));
  const knee = kneeOf(front);
  const data = [];
  for (const method of shownMethods()) {
    const here = points.filter((point) => point.cell.m === method);
    if (!here.length) continue;
    const look = DATA.methods[method];
    const ends = (place) => here.map((point) => point.cell[name][place]);
    const colours = here.map((point) => (front.includes(point) ? look.colour : "#9a9a9a"));
    data.push(legendOf(method), {
      type: "scatter", mode: "markers", name: chartText(look.label), legendgroup: String(method), showlegend: false, x: here.map((p) => p.cost), y: here.map((p) => p.accuracy),
      error_x: { ...bars(ends(0), ends(1), ends(2)), color: "#b5b5b5", thickness: 1 },
      error_y: { ...bars(here.map((p) => p.accuracy), here.map((p) => p.cell.acc[1]), here.map((p) => p.cell.acc[2])), color: "#b5b5b5" },
      marker: { size: here.map((p) => (front.includes(p) ? 14 : 10)), color: colours, symbol: here.map((p) => look.symbol + (p.fits ? "" : "-open")), line: { width: 2, color: colours } },
      text: here.map((p) => `${chartText(deviceName(p.cell.v))}, fits ${number(100 * (p.cell.fits || 0), 0)} % of ${plural(p.cell.n, "task")}${p.cell.failed ? ` (${p.cell.failed} failed)` : ""}${p.cell.standing ? `, ${chartText(p.cell.standing)}` : ""}${p.cell.basis ? `<br>${chartText(p.cell.basis, 80)}` : ""}${front.includes(p) ? "<br>on the front" : ""}${p === knee ? ", its knee" : ""}`),
      hovertemplate: `%{fullData.name}: %{y:.1f} %, %{x:.4g} ${unit}<br>%{text}<extra></extra>`,
    });
  }
  if (front.length > 1) {
    data.push({ type: "scatter", mode: "lines", name: "front", x: front.map((p) => p.cost), y: front.map((p) => p.accuracy), line: { color: "#1a1a1a", dash: "dash", width: 1.5 }, hoverinfo: "skip" });
  }
  if (knee) {
    data.push({ type: "scatter", mode: "markers", name: "knee", x: [knee.cost], y: [knee.accuracy], marker: { size: 24, symbol: "circle-open", color: "#1a1a1a", line: { width: 2, color: "#1a1a1a" } }, hoverinfo: "skip" });
  }
  const free = cells.filter((cell) => cell.v === NO_DEVICE && cell.acc);
  const layout = layoutOf({ title: axisTitle(axis), type: "log", dtick: "D2" }, { title: axisTitle("query accuracy after adaptation (%)") }, 460);
  layout.shapes = free.map((cell) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: cell.acc[0], y1: cell.acc[0], line: { dash: "dot", width: 1.5, color: "#767676" } }));
  layout.annotations = free.map((cell) => ({ xref: "paper", x: 1, xanchor: "right", y: cell.acc[0], yanchor: "bottom", showarrow: false, text: chartText(methodName(cell.m)) + " (no device)", font: { size: 12, color: "#767676" } }));
  const naming = (point) => `${methodName(point.cell.m)} on ${deviceName(point.cell.v)} (${number(point.accuracy)} %, ${significant(point.cost)} ${unit})`;
  const title = !front.length
    ? "Nothing in this choice fits its device on every task"
    : front.length === 1
      ? `One choice beats all others that fit: ${naming(front[0])}`
      : `${front.length} of ${plural(points.length, "choice")} are on the front` +
        (knee ? `; its knee is ${naming(knee)}` : `, from ${naming(front[0])} to ${naming(front.at(-1))}`);
  return {
    data, layout, title,
    columns: ["device", "method", "accuracy %", unit, "low", "high", "standing", "arithmetic and batch", "fits every task", "place"],
    rows: points.map((p) => [deviceName(p.cell.v), methodName(p.cell.m), number(p.accuracy), ...p.cell[name].map(significant), p.cell.standing || "-", p.cell.basis || "-", p.fits ? "yes" : "no", p === knee ? "knee" : front.includes(p) ? "front" : ""]),
  };
}

const PHASES = [
  ["load", "#56B4E9"],
  ["selection", "#E69F00"],
  ["training", "#0072B2"],
  ["swap", "#D55E00"],
];

/** Stacked bars: absolute on one device, shares of the whole over several (their sizes differ a thousandfold). */
function phaseChart(name) {
  const unit = name === "time" ? "s" : "J";
  const found = DATA.phases.filter((item) => onDomain(item) && onDevice(item) && onMethod(item) && item[name]);
  if (!found.length) return { empty: name === "time" ? "No method of this choice is priced." : "The power of the chosen device is not known." };
  const alone = state.device !== ALL || DATA.devices.length === 1;
  const sums = found.map((item) => item[name].slice(0, 4).reduce((sum, value) => sum + value, 0));
  const labels = found.map((item) => (alone ? "" : chartText(deviceName(item.v), narrow ? 12 : 24) + " · ") + chartText(methodName(item.m), narrow ? 12 : 24));
  const rows = found.map((_, place) => found.length - 1 - place);
  const data = PHASES.map(([phase, colour], part) => ({
    type: "bar", orientation: "h", name: phase, y: rows, x: found.map((item, place) => (alone ? item[name][part] : (100 * item[name][part]) / (sums[place] || 1))),
    marker: { color: colour, line: { color: "#fff", width: 1 } }, customdata: found.map((item) => item[name][part]),
    hovertemplate: `${phase}: %{customdata:.3g} ${unit} on average<extra></extra>`,
  }));
  if (alone) {
    data.push({
      type: "scatter", mode: "markers", name: "sum with the price model's interval", x: sums, y: rows, marker: { color: "#1a1a1a", size: 6, symbol: "line-ns-open" },
      error_x: bars(sums, found.map((item) => item[name][4] ?? null), found.map((item) => item[name][5] ?? null)), hovertemplate: `sum %{x:.3g} ${unit}<extra></extra>`,
    });
  }
  const totals = PHASES.map((_, part) => found.reduce((sum, item, place) => sum + item[name][part] / (sums[place] || 1), 0) / found.length);
  const largest = totals.indexOf(Math.max(...totals));
  const axis = alone ? `mean ${name} per task (${unit})` : `share of the ${name} per task (%)`;
  const layout = layoutOf({ title: axisTitle(axis) }, { tickvals: rows, ticktext: labels, title: { text: "" } }, Math.max(220, 120 + 24 * found.length), { barmode: "stack" });
  if (!alone) {
    layout.xaxis.range = [0, narrow ? 150 : 132];
    layout.xaxis.tickvals = narrow ? [0, 50, 100] : [0, 25, 50, 75, 100];
    layout.annotations = found.map((_, place) => ({ x: 101, xanchor: "left", y: rows[place], showarrow: false, text: `${significant(sums[place])} ${unit}${narrow ? "" : ` (${significant(found[place][name][4])} to ${significant(found[place][name][5])})`}`, font: { size: 12 } }));
  }
  return {
    data, layout,
    title: `${PHASES[largest][0]} takes ${number(100 * totals[largest], 0)} % of the ${name}, on average over what is shown (selection ${number(100 * totals[1], 1)} %)`.replace(/^./, (c) => c.toUpperCase()),
    columns: ["device", "method", "tasks", ...PHASES.map(([phase]) => `${phase}, ${unit}`), `sum, ${unit}`, "low", "high"],
    rows: found.map((item, place) => [deviceName(item.v), methodName(item.m), String(item.n), ...item[name].slice(0, 4).map(significant), significant(sums[place]), significant(item[name][4]), significant(item[name][5])]),
  };
}

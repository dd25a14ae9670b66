// Charts of accuracy: by device, its spread over tasks, its course in time.

function deviceChart() {
  const cells = shownCells().filter((cell) => cell.acc);
  const places = [...new Set(cells.map((cell) => cell.v))].sort((a, b) => b - a);
  const methods = shownMethods().filter((place) => cells.some((cell) => cell.m === place));
  if (!cells.length) return { empty: "No finished task in this choice." };
  const step = 0.8 / methods.length;
  const height = (cell) => places.indexOf(cell.v) + (cell.v === NO_DEVICE ? 0 : ((methods.length - 1) / 2 - methods.indexOf(cell.m)) * step);
  const data = methods.map((method) => {
    const here = cells.filter((cell) => cell.m === method);
    const look = DATA.methods[method];
    return {
      type: "scatter", mode: "markers", name: chartText(look.label), legendgroup: String(method), showlegend: false,
      x: here.map((cell) => cell.acc[0]), y: here.map(height),
      error_x: bars(here.map((c) => c.acc[0]), here.map((c) => c.acc[1]), here.map((c) => c.acc[2])),
      marker: { size: 10, color: look.colour, symbol: here.map((c) => look.symbol + (c.v === NO_DEVICE || c.sure ? "" : "-open")), line: { width: 2, color: look.colour } },
      text: here.map((c) => `${chartText(deviceName(c.v))}<br>${number(c.acc[1])} to ${number(c.acc[2])} %, ${plural(c.n, "task")}`),
      hovertemplate: "%{fullData.name}: %{x:.1f} %<br>%{text}<extra></extra>",
    };
  });
  const axis = { title: axisTitle("query accuracy after adaptation (%)") };
  const names = { tickvals: places.map((_, place) => place), ticktext: places.map((v) => chartText(deviceName(v), 28)), title: { text: "" } };
  return {
    data: [...methods.map(legendOf), ...data], title: gainTitle(cells), layout: layoutOf(axis, names, Math.max(280, 130 + places.length * (16 + 15 * methods.length))),
    columns: ["device", "method", "accuracy %", "95 % low", "95 % high", "gain, points", "low", "high"],
    rows: cells.map((c) => [deviceName(c.v), methodName(c.m), ...c.acc.map((v) => number(v)), ...(c.gain || [null, null, null]).map((v) => number(v))]),
  };
}

/** The largest gain among what fits every task, or among everything where nothing does. */
function gainTitle(cells) {
  const gains = cells.filter((cell) => cell.gain && !DATA.methods[cell.m].baseline);
  const fitting = gains.filter((cell) => cell.sure);
  const among = fitting.length ? fitting : gains;
  if (!among.length) return `Mean accuracy of ${plural(state.methods.size, "method")}: ${whereText()}`;
  const best = among.reduce((top, cell) => (cell.gain[0] > top.gain[0] ? cell : top));
  const equal = among.filter((cell) => cell.m === best.m && cell.gain[0] === best.gain[0]).map((cell) => cell.v);
  const sure = best.told; // by the p value corrected for all methods compared there
  const where = listed(equal, deviceName, "device", shownDevices().length);
  return `${methodName(best.m)} gains most${fitting.length ? " of what fits every task" : ""}: ${signed(best.gain[0])} points over no update on ${where}` +
    (sure ? "" : ", not distinguishable from zero") + (fitting.length ? "" : " (nothing shown fits every task)");
}

/** One ridge per domain and method: the outline of its histogram, each of the same height. */
function spreadChart() {
  const domains = shownDomains();
  const methods = shownMethods();
  const found = [];
  for (const domain of domains)
    for (const method of methods) {
      const spread = oneOf(DATA.spread, domain, method);
      const cell = oneOf(DATA.cells, domain, method);
      if (spread && cell && cell.acc) found.push({ domain, method, counts: spread.counts, cell });
    }
  if (!found.length) return { empty: DATA.domains.length ? "No finished task in this choice." : "Too many cells for one page: domains are shown together only." };
  const slot = (item) => (domains.length - 1 - domains.indexOf(item.domain)) * (methods.length + 1) + (methods.length - 1 - methods.indexOf(item.method));
  const data = [];
  for (const method of methods) {
    const here = found.filter((item) => item.method === method);
    if (!here.length) continue;
    const look = DATA.methods[method];
    const x = [], y = [];
    for (const item of here) {
      const peak = Math.max(...item.counts), base = slot(item), width = 100 / DATA.bins;
      x.push(0);
      y.push(base);
      item.counts.forEach((count, bin) => {
        x.push((bin + 0.5) * width);
        y.push(base + (0.9 * count) / peak);
      });
      x.push(100, null);
      y.push(base, null);
    }
    data.push(
      { type: "scatter", mode: "lines", fill: "toself", x, y, line: { width: 1, color: look.colour }, fillcolor: look.colour + "55", hoverinfo: "skip", showlegend: false },
      {
        type: "scatter", mode: "markers", name: chartText(look.label), x: here.map((i) => i.cell.acc[0]), y: here.map((i) => slot(i) + 0.18),
        error_x: bars(here.map((i) => i.cell.acc[0]), here.map((i) => i.cell.acc[1]), here.map((i) => i.cell.acc[2])),
        marker: { size: 8, color: look.colour, symbol: look.symbol, line: { width: 1, color: "#fff" } },
        text: here.map((i) => `${chartText(domainName(i.domain))}, ${plural(i.cell.n, "task")}`),
        hovertemplate: "%{fullData.name}: mean %{x:.1f} %<br>%{text}<extra></extra>",
      },
    );
  }
  const first = found.find((item) => DATA.methods[item.method].reference); // of several networks, one: not the hardest of one against the easiest of another
  const reference = found.filter((item) => first && item.method === first.method);
  const several = new Set(found.filter((item) => DATA.methods[item.method].reference).map((item) => item.method)).size > 1;
  const sorted = [...reference].sort((a, b) => a.cell.acc[0] - b.cell.acc[0]);
  const title = sorted.length > 1
    ? `Before any update${several ? ` (${methodName(first.method)})` : ""} ${domainName(sorted[0].domain)} is the hardest domain (${number(sorted[0].cell.acc[0])} %) and ${domainName(sorted.at(-1).domain)} the easiest (${number(sorted.at(-1).cell.acc[0])} %)`
    : `How accuracy spreads over the tasks of ${domains.length === 1 ? domainName(domains[0]) : "each domain"} (${deviceName(state.device)})`;
  const middles = domains.map((_, place) => (domains.length - 1 - place) * (methods.length + 1) + methods.length / 2);
  const names = { tickvals: middles, ticktext: domains.map((d) => chartText(domainName(d), 20)), showgrid: false, title: { text: "" } };
  return {
    data, title, layout: layoutOf({ title: axisTitle("query accuracy after adaptation (%)"), range: [0, 100] }, names, Math.max(320, 130 + domains.length * (22 + 24 * methods.length))),
    columns: ["domain", "method", "tasks", "mean %", "95 % low", "95 % high", `tasks per bin of ${100 / DATA.bins} points, from 0`],
    rows: found.map((i) => [domainName(i.domain), methodName(i.method), String(i.cell.n), ...i.cell.acc.map((v) => number(v)), i.counts.join(" ")]),
  };
}

function curveChart() {
  const curves = DATA.curves.filter((curve) => onDomain(curve) && onDevice(curve) && onMethod(curve));
  if (!curves.length) return { empty: DATA.curves.length ? "No method of this choice trains here." : "No learning curves were stored (finetune.curve_every)." };
  const alone = state.device !== ALL || DATA.devices.length === 1;
  const named = new Set();
  const kept = (curve) => (alone ? curve.points : curve.points.filter((point) => point[0] > 0)); // time 0 has no logarithm
  const data = curves.map((curve) => {
    const look = DATA.methods[curve.m], at = (place) => kept(curve).map((point) => point[place]);
    const first = !named.has(curve.m);
    named.add(curve.m);
    return {
      type: "scatter", mode: "lines+markers", name: chartText(look.label), legendgroup: String(curve.m), showlegend: first,
      x: at(1), y: at(2), error_y: { ...bars(at(2), at(3), at(4)), ...(alone ? {} : { thickness: 0.8, width: 2 }) }, opacity: alone ? 1 : 0.75,
      line: { color: look.colour, width: alone ? 2 : 1.2 }, marker: { size: alone ? 8 : 5, symbol: look.symbol, color: look.colour },
      text: kept(curve).map((point) => `${chartText(deviceName(curve.v))}, iteration ${point[0]}, ${plural(point[5], "task")}`),
      hovertemplate: "%{fullData.name}: %{y:.1f} % after %{x:.3g} s<br>%{text}<extra></extra>",
    };
  });
  const layout = layoutOf({ title: axisTitle(`median time on the device (s${alone ? "" : ", log scale"})`), ...(alone ? { rangemode: "tozero" } : { type: "log", dtick: "D2" }) }, { title: axisTitle("query accuracy (%)") }, 430);
  const starts = curves.map((curve) => curve.points[0]).filter((point) => point[0] === 0);
  const before = starts.find((point) => starts.every((other) => Math.abs(other[2] - point[2]) < 0.05)); // one line only where all start there
  if (before) {
    layout.shapes = [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: before[2], y1: before[2], line: { dash: "dot", width: 1.5, color: "#767676" } }];
    layout.annotations = [{ xref: "paper", x: 1, xanchor: "right", y: before[2], yanchor: "bottom", showarrow: false, text: "before the update", font: { size: 12, color: "#555" } }];
  }
  return {
    data, layout, title: curveTitle(curves),
    columns: ["device", "method", "iteration", "time s", "accuracy %", "95 % low", "95 % high", "tasks"],
    rows: curves.flatMap((c) => c.points.map((p) => [deviceName(c.v), methodName(c.m), String(p[0]), significant(p[1]), number(p[2]), number(p[3]), number(p[4]), String(p[5])])),
  };
}

/** The curve that ends highest, of those that fit where any does; the fastest of equal ones. */
function curveTitle(curves) {
  const fits = (curve) => DATA.cells.some((cell) => cell.d === curve.d && cell.v === curve.v && cell.m === curve.m && cell.sure);
  const among = curves.some(fits) ? curves.filter(fits) : curves;
  const last = (curve) => curve.points.at(-1);
  const top = among.reduce((best, curve) => (last(curve)[2] > last(best)[2] || (last(curve)[2] === last(best)[2] && last(curve)[1] < last(best)[1]) ? curve : best));
  return `${methodName(top.m)} ends highest${curves.some(fits) ? " of what fits" : ""}: from ${number(top.points[0][2])} to ${number(last(top)[2])} % in ${significant(last(top)[1])} s on ${deviceName(top.v)}`;
}

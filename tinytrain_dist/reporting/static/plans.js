// What is updated, and what the Fisher information says about it.

const layerText = (place) => DATA.layers[place].t;

/** Share (0 to 100) of the channels of a layer that a picture updates, on average over its tasks. */
function channelShare(picture, layer) {
  const found = picture.layers[layer.i];
  if (!found) return 0;
  return layer.c ? Math.min(100, (100 * found[1]) / layer.c) : 100 * found[0];
}

/** Rows of the picture; a method that updates the same everywhere takes one row. */
function pictureRows() {
  const byDomain = state.device !== ALL && state.domain === ALL && DATA.domains.length > 0;
  const found = DATA.pictures.filter((p) => onMethod(p) && onDevice(p) && (byDomain ? p.d !== ALL : onDomain(p)));
  const rows = [];
  for (const method of shownMethods()) {
    const here = found.filter((p) => p.m === method);
    const kinds = new Map();
    for (const picture of here) {
      const key = JSON.stringify(picture.layers);
      if (!kinds.has(key)) kinds.set(key, []);
      kinds.get(key).push(picture);
    }
    for (const group of kinds.values()) {
      const names = group.map((p) => (byDomain ? domainName(p.d) : deviceName(p.v)));
      const every = group.length === here.length && group.length > 1;
      const place = every ? `every ${byDomain ? "domain" : "device"}` : cut(names.join(", "), 30);
      rows.push({ label: `${place} · ${methodName(method)}`, picture: group[0], num: group.reduce((sum, p) => sum + p.n, 0) });
    }
  }
  return rows.reverse();
}

function planChart() {
  const rows = pictureRows();
  if (!rows.length || !DATA.layers.length) return { empty: "No method of this choice updates a layer." };
  const shares = rows.map((row) => DATA.layers.map((layer) => channelShare(row.picture, layer)));
  const partial = rows.filter((row) => Object.keys(row.picture.layers).length < DATA.layers.length);
  const tally = new Map();
  for (const row of partial) for (const layer of Object.keys(row.picture.layers)) tally.set(layer, (tally.get(layer) || 0) + row.picture.layers[layer][0] * row.num); // tasks, not rows of the picture
  const often = [...tally].sort((a, b) => b[1] - a[1] || a[0] - b[0])[0];
  const counts = partial.map((row) => Object.keys(row.picture.layers).length);
  const layerOf = (index) => DATA.layers.find((layer) => String(layer.i) === index).t;
  const title = often
    ? `Partial updates touch ${Math.min(...counts)} to ${Math.max(...counts)} of ${DATA.layers.length} layers; layer ${layerOf(often[0])} is updated in most tasks`
    : "Every method shown updates every layer";
  const numbers = [...Array(rows.length).keys()];
  return {
    data: [{
      type: "heatmap", z: shares, x: DATA.layers.map((_, place) => place), y: numbers, zmin: 0, zmax: 100, colorscale: "Cividis", xgap: narrow ? 0 : 1, ygap: 2,
      colorbar: { title: { text: narrow ? "%" : "channels<br>updated (%)" }, thickness: narrow ? 6 : 12 },
      text: rows.map((row) => DATA.layers.map((layer, place) => {
        const part = row.picture.layers[layer.i];
        return `${chartText(row.label, 80)}<br>layer ${layerText(place)}<br>` + (part ? `updated in ${number(100 * part[0], 0)} % of ${plural(row.picture.n, "task")}` : "not updated");
      })),
      hovertemplate: "%{text}<br>%{z:.0f} % of its channels on average<extra></extra>",
    }],
    title,
    layout: layoutOf({ title: axisTitle("layer (index and role, from input to output)"), tickvals: DATA.layers.map((_, place) => place).filter((place) => !narrow || place % 6 === 0), ticktext: DATA.layers.map((layer) => chartText(layer.t)).filter((_, place) => !narrow || place % 6 === 0), tickangle: -90, tickfont: { size: 10 }, showgrid: false },
      { tickvals: numbers, ticktext: rows.map((row) => chartText(row.label, narrow ? 20 : 44)), showgrid: false, title: { text: "" } }, Math.max(260, 190 + 24 * rows.length), { showlegend: false }),
    columns: ["where · method", "tasks", "layers with their mean share of channels updated, %"],
    rows: rows.map((row, place) => [row.label, String(row.picture.n), DATA.layers.map((layer, at) => (row.picture.layers[layer.i] ? `${layer.t}: ${number(shares[place][at], 0)}` : "")).filter(Boolean).join("; ")]),
  };
}

/** Bars: what the tasks say is important. Marks: what the chosen devices and methods update of it. */
function fisherChart() {
  const entries = DATA.potentials.filter(onDomain), entry = entries[0];
  if (!entry) return { empty: DATA.potentials.length ? "Fisher information was not measured on this domain." : "No method of this run measured Fisher information." };
  const layers = DATA.layers.filter((layer) => entries.some((one) => one.shares[layer.i]));
  const of = (one, place) => layers.map((layer) => (one.shares[layer.i] ? one.shares[layer.i][place] : null));
  const names = layers.map((layer) => chartText(layer.t));
  const data = entries.map((one, place) => ({
    type: "bar", name: `share of the Fisher potential${one.name ? `, ${chartText(one.name)}` : ""}`, x: names, y: of(one, 0), error_y: bars(of(one, 0), of(one, 1), of(one, 2)),
    marker: { color: ["#56B4E9", "#F0E442", "#999999"][place % 3], line: { color: "#0072B2", width: 1 }, pattern: { shape: ["", "/", "x", "."][place % 4] } },
    hovertemplate: `%{x}: %{y:.2f} % of the potential, ${plural(one.n, "task")}<extra></extra>`,
  }));
  for (const method of shownMethods()) {
    const pictures = DATA.pictures.filter((p) => onDomain(p) && onDevice(p) && p.m === method);
    if (!pictures.length || pictures.every((p) => Object.keys(p.layers).length >= DATA.layers.length)) continue;
    const look = DATA.methods[method];
    data.push({
      type: "scatter", mode: "markers", name: `channels updated by ${chartText(look.label)}`, x: names, yaxis: "y",
      y: layers.map((layer) => pictures.reduce((sum, p) => sum + channelShare(p, layer), 0) / pictures.length),
      marker: { color: look.colour, symbol: look.symbol, size: 8 }, hovertemplate: "%{x}: %{y:.0f} % of its channels updated<extra></extra>",
    });
  }
  const own = layers.filter((layer) => entry.shares[layer.i]);
  const top = own.reduce((best, layer) => (entry.shares[layer.i][0] > entry.shares[best.i][0] ? layer : best));
  return {
    data,
    title: `Layer ${top.t} holds the largest part of the Fisher potential, ${number(entry.shares[top.i][0])} % (${entry.name ? `${entry.name}, ` : ""}${domainName(state.domain)}, ${plural(entry.n, "task")})`,
    layout: layoutOf({ title: axisTitle("layer (index and role)"), type: "category", tickangle: -90 }, { title: axisTitle("share (%)"), rangemode: "tozero" }, 430),
    columns: ["layer", ...entries.flatMap((one) => [`share of the potential %${one.name ? `, ${one.name}` : ""}`, "95 % low", "95 % high"]), ...data.slice(entries.length).map((trace) => trace.name.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&") + ", %")],
    rows: layers.map((layer, place) => [layer.t, ...entries.flatMap((one) => (one.shares[layer.i] || [null, null, null]).map((v) => number(v, 2))), ...data.slice(entries.length).map((trace) => number(trace.y[place], 0))]),
  };
}

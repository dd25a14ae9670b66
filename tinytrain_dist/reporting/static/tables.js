// Tables that follow the filters; text goes in as text, never as markup.

function fill(id, columns, rows) {
  const table = document.getElementById(id);
  const line = (cells, tag) => {
    const tr = document.createElement("tr");
    cells.forEach((cell, place) => {
      const element = document.createElement(place === 0 || tag === "th" ? "th" : "td");
      element.scope = tag === "th" ? "col" : "row";
      if (element.tagName === "TD") element.removeAttribute("scope");
      element.textContent = cell;
      tr.append(element);
    });
    return tr;
  };
  const head = document.createElement("thead"), body = document.createElement("tbody");
  head.append(line(columns, "th"));
  body.append(...rows.map((row) => line(row, "td")));
  table.replaceChildren(head, body);
}

function drawTables() {
  const cells = shownCells();
  fill("devices-table", ["method", "device", ...DATA.columns], cells.map((cell) => [methodName(cell.m), cell.v === NO_DEVICE ? "none needed" : deviceName(cell.v), ...cell.text]));
  const domains = shownDomains();
  fill("domains-table", ["method", ...domains.map(domainName), ...(state.domain === ALL ? ["all tasks pooled"] : [])], shownMethods().map((method) => {
    const values = [...domains, ...(state.domain === ALL ? [ALL] : [])].map((domain) => oneOf(DATA.cells, domain, method));
    return [methodName(method), ...values.map((cell) => (cell ? cell.text[DATA.columns.indexOf("accuracy %")] : "-"))];
  }));
  const methods = shownMethods().filter((method) => cells.some((cell) => cell.m === method && cell.v !== NO_DEVICE));
  fill("fits-table", ["device", ...methods.map(methodName)], shownDevices().map((device) => [
    deviceName(device), ...methods.map((method) => fitText(cells.find((cell) => cell.v === device && cell.m === method))),
  ]));
  drawTroubles(cells);
}

function fitText(cell) {
  if (!cell) return "-";
  if (cell.inapplicable) return "not applicable";
  const parts = [cell.fits === null ? "-" : `${number(100 * cell.fits, 0)} %`];
  if (cell.unsure) parts.push(`${number(100 * cell.unsure, 0)} % uncertain`);
  if (cell.infeasible) parts.push(`${cell.infeasible} infeasible`);
  if (cell.failed) parts.push(`${cell.failed} failed`);
  return parts.join(", ");
}

/** Counts of one kind add up over domains; the total is the number of rows of the cell. */
function drawTroubles(cells) {
  const found = new Map();
  for (const item of DATA.troubles) {
    if (!onMethod(item) || (state.domain !== ALL && !onDomain(item)) || (item.v !== NO_DEVICE && !onDevice(item))) continue;
    const key = `${item.v}/${item.m}/${item.kind}`;
    const sum = found.get(key) || { ...item, num: 0 };
    sum.num += item.num;
    if (!sum.example) sum.example = item.example;
    found.set(key, sum);
  }
  const alike = new Map(); // the same finding on several devices is one line
  for (const item of [...found.values()].sort((a, b) => b.num - a.num)) {
    const cell = cells.find((other) => other.v === item.v && other.m === item.m);
    const line = [methodName(item.m), item.kind, `${item.num} of ${cell ? cell.rows : "?"}`, item.example || "-"];
    const key = JSON.stringify(line);
    if (!alike.has(key)) alike.set(key, { line, places: [] });
    alike.get(key).places.push(item.v);
  }
  const where = (places) => (places[0] === NO_DEVICE ? "none needed" : places.length === DATA.devices.length && places.length > 1 ? "every device" : places.map(deviceName).join(", "));
  const rows = [...alike.values()].map(({ line, places }) => [where(places), ...line]);
  document.getElementById("no-trouble").hidden = rows.length > 0 || DATA.troubles_left_out > 0;
  document.getElementById("trouble").hidden = rows.length === 0 && !DATA.troubles_left_out;
  document.getElementById("troubles-cut").hidden = !DATA.troubles_left_out;
  document.getElementById("troubles-cut").textContent = `${plural(DATA.troubles_left_out, "rarer finding")} of the whole run left out here, so counts may be too low; tinytrain compare and the result files hold them all.`;
  fill("troubles-table", ["device", "method", "kind", "rows", "for example"], rows);
}

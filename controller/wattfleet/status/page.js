// SPDX-License-Identifier: Apache-2.0
// Draws the plots with uPlot, sorts and filters the table. Without it the page has everything too, as tables.
"use strict";
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const COLOURS = ["--one", "--two", "--three", "--four"];
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const utc = (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "Etc/UTC");
  // Of the day, and the day itself where it begins.
  const clock = (seconds) => {
    const text = new Date(seconds * 1e3).toISOString();
    return text.slice(11, 16) === "00:00" ? text.slice(5, 10) : text.slice(11, 16);
  };
  let drawn = [];

  const draw = (plot) => {
    const place = document.getElementById("plot-" + plot.key);
    const bars = plot.times.length === 0;
    const x = bars ? plot.labels.map((_, at) => at) : plot.times;
    const axis = { stroke: colour("--front"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
    const series = plot.series.map((one, at) => ({
      label: one.name + (plot.unit === "kW" ? " (kW)" : ""),
      stroke: colour(COLOURS[at]),
      width: 2,
      dash: one.dash.length ? one.dash : undefined,
      fill: bars ? colour(COLOURS[at]) : undefined,
      paths: bars ? uPlot.paths.bars({ size: [0.7, 60] }) : undefined,
      points: { show: false },
      value: (_, value) => (value == null ? "-" : String(Math.round(value * 10) / 10)),
    }));
    const width = place.clientWidth || place.parentElement.clientWidth;
    const tight = bars && plot.labels.some((label) => label.length * 7 > (width - 60) / plot.labels.length);
    const category = (value) => (Number.isInteger(value) ? (plot.labels[value] ?? "") : "");
    const options = {
      width,
      height: plot.key === "flow" ? 300 : 200,
      tzDate: utc,
      cursor: { y: false },
      // As the lines are drawn, for those who do not see their colours.
      legend: { show: !bars, markers: { width: 3, dash: (_, at) => ["solid", "dashed", "dotted", "double"][at - 1] } },
      scales: bars
        ? { x: { time: false, range: [-0.6, plot.labels.length - 0.4] }, y: { range: (_, least, most) => [0, Math.max(1, most * 1.1)] } }
        : { x: { time: true }, y: plot.unit === "kW" ? {} : { range: (_, least, most) => [0, Math.max(1, most * 1.1)] } },
      series: [bars ? {} : { label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}" }, ...series],
      axes: [
        bars ? { ...axis, grid: { show: false }, splits: () => x, values: (_, splits) => splits.map(category), rotate: tight ? -35 : 0, size: tight ? 70 : 40 }
          : { ...axis, values: (_, splits) => splits.map(clock) },
        { ...axis, size: 60 },
      ],
    };
    return new uPlot(options, [x, ...plot.series.map((one) => one.values)], place);
  };

  const redraw = () => {
    drawn.forEach((one) => one.destroy());
    // Shown first, or it has no width.
    figures.forEach((plot) => { document.getElementById("plot-" + plot.key).style.display = "block"; });
    drawn = figures.map(draw);
  };

  let waiting;
  const later = () => { clearTimeout(waiting); waiting = setTimeout(redraw, 150); };
  redraw();
  window.addEventListener("resize", later);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  // Paper is white.
  const paper = (yes) => { document.documentElement.toggleAttribute("data-paper", yes); redraw(); };
  window.addEventListener("beforeprint", () => paper(true));
  window.addEventListener("afterprint", () => paper(false));

  const table = document.getElementById("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const shown = document.getElementById("shown");

  const keys = (column) => rows.map((row) => {
    const text = row.cells[column].textContent.trim();
    const number = Number.parseFloat(text);
    return { row, text, number, plain: /^-?\d+(\.\d+)?( |$)/.test(text) };
  });
  const compare = (one, other) => {
    // What is not known comes last, whichever way.
    if ((one.text === "-") !== (other.text === "-")) return one.text === "-" ? 1 : -1;
    return 0;
  };
  const sort = (column, way) => {
    const found = keys(column);
    const numbers = found.every((one) => one.plain || one.text === "-");
    const collator = new Intl.Collator("en", { numeric: true });
    found.sort((one, other) => compare(one, other)
      || way * (numbers ? one.number - other.number : collator.compare(one.text, other.text)) || 0);
    body.append(...found.map((one) => one.row));
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      [...table.tHead.rows[0].cells].forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      sort(column, way);
    });
  });

  const most = Number(table.dataset.most);
  const all = document.getElementById("all");
  all.hidden = rows.length <= most;
  const tell = (text) => {
    shown.textContent = text || (all.hidden ? "" : `the first ${most} of ${rows.length} sites are shown`);
  };
  tell("");
  all.addEventListener("click", () => {
    table.classList.add("all");
    all.hidden = true;
    tell("");
  });

  const filter = document.getElementById("filter");
  const texts = new Map();
  filter.disabled = false;
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      const here = texts.get(row).includes(wanted);
      row.hidden = !here;
      count += here;
    }
    table.classList.toggle("all", wanted !== "" || all.hidden);
    tell(wanted ? `${count} of ${rows.length} sites` : "");
  });
})();

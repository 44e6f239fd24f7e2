// Line charts as SVG, each with a summary for screen readers and a table.

const PLOT = { height: 152, left: 60, right: 12, top: 8, bottom: 24 };
/// Rows of the table of a chart.
const TABLE_ROWS = 12;

/// The smallest round number that is not below the value: 1, 2, 2.5 or 5 with zeros.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value * 0.999999) * power;
}

/// Marks of the vertical axis from 0, three to five of them, up to a round number. Numbers that are counted have no
/// parts.
function marks(highest, isCounted) {
  let step = roundUp(Math.max(highest, 1e-9) / 4);
  if (isCounted) step = Math.max(1, Math.ceil(step));
  const upTo = Math.max(1, Math.ceil(highest / step - 1e-9));
  return Array.from({ length: upTo + 1 }, (_, index) => index * step);
}

/// Round times between two moments in seconds, at most six.
function timeMarks(from, to) {
  const step =
    [60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600].find((size) => (to - from) / size <= 6) ?? 28800;
  const zone = new Date(to * 1000).getTimezoneOffset() * 60;
  const times = [];
  for (let time = Math.ceil((from - zone) / step) * step + zone; time <= to; time += step) times.push(time);
  return times;
}

/// The path of a line, interrupted where there is no value or no sample.
function linePath(times, values, gap, x, y) {
  let path = "";
  let last = null;
  times.forEach((time, index) => {
    const value = values[index];
    if (value === null) {
      last = null;
      return;
    }
    const joined = last !== null && time - last <= gap;
    const isAlone = !joined && (values[index + 1] ?? null) === null;
    path += `${joined ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    // A single value would be invisible.
    if (isAlone) path += `h1.5`;
    last = time;
  });
  return path;
}

/// The chart with the mean of each `size` values, or with the highest of them.
function grouped(chart, size) {
  if (size <= 1) return chart;
  const groups = (list, combine) =>
    Array.from({ length: Math.ceil(list.length / size) }, (_, index) =>
      combine(list.slice(index * size, (index + 1) * size)),
    );
  const combine = (values) => {
    const known = values.filter((value) => value !== null);
    if (known.length === 0) return null;
    if (chart.isPeak) return Math.max(...known);
    return known.reduce((total, value) => total + value, 0) / known.length;
  };
  const series = chart.series.map((one) => ({ ...one, values: groups(one.values, combine) }));
  return { ...chart, series, times: groups(chart.times, (times) => times.at(-1)), step: chart.step * size };
}

/// The area between a line and the axis.
function areaPath(path, axis) {
  const parts = path
    .split("M")
    .filter(Boolean)
    .map((part) => {
      const start = part.split(" ")[0];
      const end = part.includes("L") ? part.slice(part.lastIndexOf("L") + 1).split(" ")[0] : start;
      return `M${part}L${end} ${axis}L${start} ${axis}Z`;
    });
  return parts.join("");
}

/// Draws a chart that `width` pixels are for.
function plot(whole, width) {
  // At most one value for three pixels.
  const chart = grouped(whole, Math.ceil((3 * whole.times.length) / (width - PLOT.left)));
  const { times, series, from, to, step } = chart;
  const { height, left, right, top, bottom } = PLOT;
  const values = series.flatMap((one) => one.values).filter((value) => value !== null);
  const rows =
    chart.highest !== undefined
      ? [0, 1, 2, 3, 4].map((quarter) => (chart.highest * quarter) / 4)
      : marks(Math.max(...values, 0), chart.isCounted);
  const highest = rows.at(-1);
  const x = (time) => left + ((time - from) / (to - from)) * (width - left - right);
  const y = (value) => height - bottom - (value / highest) * (height - top - bottom);
  const drawing = svg("svg", {
    class: "plot",
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": summary(whole),
  });
  for (const value of rows) {
    drawing.append(
      svg("line", { class: value === 0 ? "axis" : "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, chart.format(value)),
    );
  }
  for (const time of timeMarks(from, to)) {
    const label = clock.format(new Date(time * 1000));
    if (x(time) < left + 8 || x(time) > width - 16) continue;
    drawing.append(
      svg("line", { class: "axis", x1: x(time), x2: x(time), y1: height - bottom, y2: height - bottom + 4 }),
      svg("text", { x: x(time), y: height - 6, "text-anchor": "middle" }, label),
    );
  }
  series.forEach((one, index) => {
    const path = linePath(times, one.values, step * 1.5, x, y);
    // Two lines differ in more than their colours: the first one has a filled area.
    if (index === 0) drawing.append(svg("path", { class: "area", d: areaPath(path, y(0)) }));
    drawing.append(svg("path", { class: `line-${index + 1}`, d: path }));
  });
  return drawing;
}

/// The last and the highest value of each line, as sentences.
function summary(chart) {
  const lines = chart.series.map((one) => {
    const known = one.values.map((value, index) => [value, chart.times[index]]).filter(([value]) => value !== null);
    if (known.length === 0) return `${one.name}: no value.`;
    const last = known.at(-1);
    const highest = known.reduce((best, next) => (next[0] > best[0] ? next : best));
    const time = clock.format(new Date(highest[1] * 1000));
    return `${one.name}: ${chart.format(last[0])} at the end, at most ${chart.format(highest[0])} at ${time}.`;
  });
  return `${chart.title}, ${chart.unit}. ${lines.join(" ")}`;
}

/// The values in a dozen steps.
function valueTable(whole) {
  const { title, unit, times, series, format } = grouped(whole, Math.ceil(whole.times.length / TABLE_ROWS));
  const rows = times.map((time, index) => [
    clock.format(new Date(time * 1000)),
    ...series.map(({ values }) => (values[index] === null ? "–" : format(values[index]))),
  ]);
  const names = series.map(({ name }) => ({ text: name, number: true }));
  return table(`${title}, ${unit}`, ["Until", ...names], rows);
}

/// The names of the lines, if there are several.
function legend(series) {
  if (series.length < 2) return null;
  return el(
    "ul",
    { class: "legend", "aria-hidden": "true" },
    series.map((one, index) =>
      el(
        "li",
        {},
        svg(
          "svg",
          { class: "plot", viewBox: "0 0 18 10" },
          index === 0 && svg("path", { class: "area", d: "M0 2H18V10H0Z" }),
          svg("path", { class: `line-${index + 1}`, d: index === 0 ? "M0 2H18" : "M0 5H18" }),
        ),
        one.name,
      ),
    ),
  );
}

/// Shows a chart in a figure, which keeps its table open. A chart with `empty` is that sentence.
function showChart(figure, chart) {
  const isOpen = figure.querySelector("details")?.open ?? false;
  const heading = el("h4", {}, chart.title);
  if (chart.empty) {
    fill(figure, heading, note(chart.empty));
    return;
  }
  const values = el("div", {});
  const more = el(
    "details",
    {
      on: { toggle: () => more.open && fill(values, valueTable(chart)) },
    },
    el("summary", { "data-key": `table-${chart.id}` }, "Show as a table"),
    values,
  );
  more.open = isOpen;
  const width = Math.max(264, Math.round(figure.clientWidth || 360));
  fill(figure, heading, el("p", { class: "latest" }, chart.unit), plot(chart, width), legend(chart.series), more);
}

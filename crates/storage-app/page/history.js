// The charts of the overview, from `history`: one value per minute in columns.

/// The samples that have been read: the columns, by their names, and their times.
const past = { since: null, step: 60, times: [], columns: {} };
/// The columns that the charts use.
const COLUMNS = [
  "Create.Requests",
  "Create.Failures",
  "Create.Bytes",
  "Create.MeanMilliseconds",
  "Read.Requests",
  "Read.Failures",
  "Read.Bytes",
  "Read.MeanMilliseconds",
  "Remove.Failures",
  "Pending.Files",
  "Cache.Hits",
  "Cache.Misses",
];

let period = 360;

/// Forgets all samples.
const forget = () => Object.assign(past, { times: [], columns: {} });

/// Whether the samples of an answer continue those that are known: Orthanc has not been restarted, and they are as long.
const continues = (answer) => answer.Since === past.since && answer.StepSeconds === past.step;

/// Adds an answer to the samples, and forgets those that are older than the period.
function remember(answer) {
  Object.assign(past, { since: answer.Since, step: answer.StepSeconds });
  const known = past.times.at(-1) ?? 0;
  const isNew = answer.Times.map((time) => time > known);
  const from = (answer.Times.at(-1) ?? known) - period * 60;
  const times = past.times.concat(answer.Times.filter((_, index) => isNew[index]));
  for (const name of COLUMNS) {
    const column = name.split(".").reduce((value, key) => value?.[key], answer) ?? [];
    const values = (past.columns[name] ?? []).concat(column.filter((_, index) => isNew[index]));
    past.columns[name] = values.filter((_, index) => times[index] > from);
  }
  past.times = times.filter((time) => time > from);
}

/// What a column has in each minute.
const perMinute = (name) => past.columns[name].map((value) => (value * 60) / past.step);
const sum = (columns) => columns[0].map((_, index) => columns.reduce((total, column) => total + column[index], 0));
const isZero = (series) => series.every((one) => one.values.every((value) => !value));

function chartsOfPast() {
  const { columns, step } = past;
  const requests = [
    { name: "Stores", values: perMinute("Create.Requests") },
    { name: "Reads", values: perMinute("Read.Requests") },
  ];
  const failures = [
    { name: "Failures", values: sum(["Create.Failures", "Read.Failures", "Remove.Failures"].map(perMinute)) },
  ];
  const speed = (name) => columns[name].map((value) => value / step);
  const data = [
    { name: "Stored", values: speed("Create.Bytes") },
    { name: "Read", values: speed("Read.Bytes") },
  ];
  const latency = [
    { name: "Stores", values: columns["Create.MeanMilliseconds"] },
    { name: "Reads", values: columns["Read.MeanMilliseconds"] },
  ];
  const pending = [{ name: "Files", values: columns["Pending.Files"] }];
  const asked = sum([columns["Cache.Hits"], columns["Cache.Misses"]]);
  const hits = [{ name: "Hits", values: asked.map((all, index) => (all ? columns["Cache.Hits"][index] / all : null)) }];
  const number = (value) => short(value);
  return [
    {
      id: "requests",
      title: "Stores and reads",
      unit: "requests per minute",
      series: requests,
      format: number,
      isCounted: true,
      none: "No file has been stored or read in this period.",
    },
    {
      id: "data",
      title: "Data",
      unit: "bytes per second",
      series: data,
      format: bytes,
      none: "No data has been stored or read in this period.",
    },
    {
      id: "latency",
      title: "Time of a request",
      unit: "mean of each minute",
      series: latency,
      format: milliseconds,
      none: "There was no request in this period.",
    },
    {
      id: "failures",
      title: "Failures",
      unit: "failed requests per minute",
      series: failures,
      format: number,
      isCounted: true,
      isPeak: true,
      none: "No request has failed in this period.",
    },
    {
      id: "backlog",
      title: "Waiting for upload",
      unit: "files",
      series: pending,
      format: number,
      isCounted: true,
      isPeak: true,
      none: "No file had to wait for its upload at the end of a minute.",
    },
    {
      id: "cache",
      title: "Found in the cache",
      unit: "share of all lookups, also those of verifications",
      series: hits,
      format: percent,
      highest: 1,
      none: "Nothing was looked up in the cache in this period.",
    },
  ];
}

function showCharts() {
  const place = byId("charts");
  const { times, step } = past;
  if (times.length < 2) {
    fill(
      place,
      note(`The charts begin ${duration(2 * step)} after the start of Orthanc, and go back 24 hours.`, {
        "data-testid": "charts-empty",
      }),
    );
    return;
  }
  const to = times.at(-1);
  const from = Math.max(to - period * 60, times[0]);
  const charts = chartsOfPast();
  // All of them before the first is drawn, since their number decides their width.
  if (!place.querySelector(".charts")) {
    fill(
      place,
      el(
        "div",
        { class: "charts" },
        charts.map(({ id }) => el("figure", { class: "chart", "data-chart": id })),
      ),
    );
  }
  for (const chart of charts) {
    const figure = place.querySelector(`[data-chart="${chart.id}"]`);
    const known = chart.series.some((one) => one.values.some((value) => value !== null));
    const empty = !known || (chart.id !== "cache" && isZero(chart.series)) ? chart.none : null;
    showChart(figure, { ...chart, times, from, to, step, empty });
  }
}

/// Reads the samples that are not known yet.
async function readHistory() {
  for (;;) {
    const asked = period;
    const since = past.times.at(-1) ?? 0;
    const answer = await get(`object-storage/history?minutes=${asked}&since=${since}`, "read the history");
    if (asked !== period) continue; // The user has chosen another period in the meantime.
    if (since === 0 || continues(answer)) return remember(answer);
    forget();
  }
}

const historyPoll = new Poll(
  30,
  () => view === "overview",
  async () => {
    try {
      await readHistory();
      showCharts();
    } catch (error) {
      if (past.times.length === 0) fill(byId("charts"), note(error.message, { "data-testid": "charts-error" }));
      throw error;
    }
  },
);

byId("period").addEventListener("change", () => {
  period = Number(byId("period").value);
  forget();
  historyPoll.now();
});

let drawnWidth = 0;
addEventListener("resize", () =>
  requestAnimationFrame(() => {
    const width = byId("charts").clientWidth;
    if (width === drawnWidth || view !== "overview" || past.times.length < 2) return;
    drawnWidth = width;
    showCharts();
  }),
);

// One study: where each series is, and what can be done with it.

/// Series of one page of a study.
const SERIES_PAGE = 50;

/// The study that is shown.
let opened = null;

async function openStudy({ level, id }) {
  if (level === "patient") {
    showPatient(id);
    return;
  }
  if (opened?.level === level && opened.asked === id) return;
  const current = { level, asked: id, series: [], activities: [] };
  opened = current;
  say(byId("title-study"), "Study");
  fill(byId("study"), note("Loading…", { class: "loading" }));
  try {
    const path = level === "series" ? `series/${encodeURIComponent(id)}/study` : `studies/${encodeURIComponent(id)}`;
    current.study = await get(path, "open this study");
    // Which actions there are depends on the mode of the plugin.
    if (status === null) await statusPoll.running;
    if (opened !== current) return;
    showStudy(current);
    await loadSeries(current);
  } catch (error) {
    if (opened === current) {
      const text = error.status === 404 ? "Orthanc has no such study. It may have been deleted." : error.message;
      fill(byId("study"), sign("error", text));
      opened = null;
    }
  }
}

function showStudy(current) {
  const { MainDicomTags: tags, PatientMainDicomTags: patient = {} } = current.study;
  say(byId("title-study"), personName(patient.PatientName) || "Study without a name");
  const facts = [
    ["Patient ID", patient.PatientID],
    ["Born", dicomDate(patient.PatientBirthDate)],
    ["Study date", dicomDate(tags.StudyDate)],
    ["Study", tags.StudyDescription],
    ["Accession number", tags.AccessionNumber],
  ];
  current.head = el(
    "dl",
    { class: "facts plain" },
    facts.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", { class: "value" }, value || "–"))),
  );
  current.actions = el("div", { class: "actions", "data-testid": "actions" }, studyActions(current));
  current.list = el("ul", { class: "activities", "data-testid": "activities", "aria-live": "polite" });
  current.said = el("p", { role: "status", "data-testid": "study-said" });
  current.table = el("div", { "data-testid": "series-list" });
  fill(byId("study"), current.head, current.actions, current.said, current.list, current.table);
}

/// Reads the next page of series, and then where their files are.
async function loadSeries(current) {
  const ids = current.study.Series ?? [];
  const page = ids.slice(current.series.length, current.series.length + SERIES_PAGE);
  const read = await inTurn(page, (id) => get(`series/${encodeURIComponent(id)}`, "read a series of this study"));
  if (opened !== current) return;
  const numberOf = (series) => Number(series.MainDicomTags.SeriesNumber ?? Infinity);
  read.sort((a, b) => numberOf(a) - numberOf(b));
  const added = read.map((series) => ({
    series,
    places: null,
    error: null,
    where: el("div", {}),
    form: el("div", {}),
  }));
  current.series.push(...added);
  showSeries(current);
  // Two series at once: the plugin asks the bucket for 16 files of each.
  await inTurn(added, (one) => opened === current && look(current, one, FIRST_FILES), 2);
}

/// Looks for the next files of a series, and shows what is known.
async function look(current, one, limit) {
  try {
    one.places ??= new Places();
    one.error = null;
    await locate(one.series.ID, one.places, limit);
  } catch (error) {
    one.error = error.message;
  }
  if (opened === current) showPlaces(current, one);
}

/// Looks for all files of a series that have not been looked for.
async function lookForRest(current, one) {
  do await look(current, one, MORE_FILES);
  while (opened === current && !one.error && !one.places.isComplete);
}

function showPlaces(current, one) {
  const { places, error, series } = one;
  const number = series.Instances?.length ?? 0;
  const again = () => button("Try again", { "data-key": `again-${series.ID}` }, () => look(current, one, FIRST_FILES));
  if (error && !places.asked) {
    fill(one.where, sign("error", error), el("div", {}, again()));
    fill(one.form);
    return;
  }
  const isPartial = !places.isComplete && places.instances.size < number;
  const checked = isPartial && [
    el(
      "div",
      { class: "sub", "data-testid": "checked" },
      `${count(places.instances.size)} of ${plural(number, "image")} checked.`,
    ),
    button(
      "Check the rest",
      { class: "link", "data-testid": "check-rest", "data-key": `rest-${series.ID}` },
      (event) => {
        event.currentTarget.disabled = true;
        lookForRest(current, one);
      },
    ),
  ];
  fill(one.where, placeList(places), checked, error && [sign("error", error), again()]);
  fill(one.form, formList(places));
}

function showSeries(current) {
  const ids = current.study.Series ?? [];
  const rows = current.series.map((one) => {
    const tags = one.series.MainDicomTags;
    if (!one.where.firstChild) fill(one.where, sign("busy", "Looking…"));
    return {
      attributes: { "data-testid": "series", "data-series": one.series.ID },
      cells: [
        [
          el(
            "span",
            {},
            tags.SeriesDescription || tags.ProtocolName || `Series ${tags.SeriesNumber ?? "without a number"}`,
          ),
          el(
            "div",
            { class: "sub" },
            [tags.Modality, tags.SeriesNumber && `number ${tags.SeriesNumber}`].filter(Boolean).join(", "),
          ),
        ],
        count(one.series.Instances?.length),
        one.where,
        one.form,
      ],
    };
  });
  const rest = ids.length - current.series.length;
  fill(
    current.table,
    el("h3", {}, plural(ids.length, "series", "series")),
    table("Series of the study", ["Series", { text: "Images", number: true }, "Where", "Form"], rows, {
      class: "series",
    }),
    rest > 0 &&
      el(
        "p",
        { class: "more" },
        button(
          `Show ${Math.min(rest, SERIES_PAGE)} more of ${count(rest)} series`,
          { "data-testid": "more-series" },
          (event) => {
            event.currentTarget.disabled = true;
            loadSeries(current).catch((error) => fill(current.said, sign("error", error.message)));
          },
        ),
      ),
  );
}

/// Looks again where the series are, after a job has moved them.
async function lookAgain(current) {
  await inTurn(
    current.series,
    (one) => {
      one.places = null;
      return opened === current && look(current, one, FIRST_FILES);
    },
    2,
  );
}

openers.study = openStudy;

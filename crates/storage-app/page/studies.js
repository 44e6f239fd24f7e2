// The search for studies.

/// Studies of one page of results.
const PAGE = 25;

/// The search that is shown: what Orthanc was asked for, and what it has answered.
let search = null;

/// What is entered, as a query of Orthanc; null if nothing is.
function enteredQuery() {
  const value = (id) => byId(id).value.trim().replace(/\\/g, " ");
  const query = {};
  // Words in any part of the name: "jane doe" finds DOE^JANE only in this order.
  const name = value("search-name");
  if (name)
    query.PatientName = `*${name
      .split(/[\s,^*]+/)
      .filter(Boolean)
      .join("*")}*`;
  const started = (text) => (/[*?]/.test(text) ? text : `${text}*`);
  const patient = value("search-patient-id");
  if (patient) query.PatientID = started(patient);
  const accession = value("search-accession");
  if (accession) query.AccessionNumber = started(accession);
  const day = (id) => byId(id).value.replaceAll("-", "");
  if (day("search-from") || day("search-to")) query.StudyDate = `${day("search-from")}-${day("search-to")}`;
  return query;
}

/// Asks Orthanc for the next page of a search.
const findPage = (query, since) =>
  post(
    "tools/find",
    {
      Level: "Study",
      Query: query,
      Limit: PAGE,
      Since: since,
      Expand: true,
      RequestedTags: ["ModalitiesInStudy", "NumberOfStudyRelatedInstances"],
      // The newest first, from Orthanc 1.12.5 on; earlier ones ignore it.
      OrderBy: [{ Type: "DicomTag", Key: "StudyDate", Direction: "DESC" }],
    },
    "search for studies",
  );

/// Begins a search. `next` gets the number of studies that are shown, and returns the next ones.
async function startSearch(next, none) {
  const current = { next, none, studies: [], isComplete: false };
  search = current;
  fill(byId("results"));
  say(byId("found"), "Searching…");
  await continueSearch(current);
}

async function continueSearch(current) {
  try {
    const page = await current.next(current.studies.length);
    if (search !== current) return;
    current.studies.push(...page);
    current.isComplete = page.length < PAGE;
    showResults(current);
  } catch (error) {
    if (search === current) fill(byId("found"), sign("error", error.message));
  }
}

function studyRow(study) {
  const { MainDicomTags: tags, PatientMainDicomTags: patient = {} } = study;
  const requested = study.RequestedTags ?? {};
  const name = personName(patient.PatientName) || "No name";
  return {
    attributes: { "data-study": study.ID },
    cells: [
      [
        el("a", { href: `#study=${study.ID}`, "data-key": study.ID }, name),
        el("div", { class: "sub" }, patient.PatientID ?? ""),
      ],
      dicomDate(patient.PatientBirthDate),
      dicomDate(tags.StudyDate),
      [
        el("span", {}, tags.StudyDescription || "–"),
        el("div", { class: "sub" }, (requested.ModalitiesInStudy ?? "").replaceAll("\\", ", ")),
      ],
      tags.AccessionNumber ?? "",
      [
        count(study.Series?.length),
        requested.NumberOfStudyRelatedInstances &&
          el("div", { class: "sub" }, plural(Number(requested.NumberOfStudyRelatedInstances), "image")),
      ],
    ],
  };
}

function showResults(current) {
  const { studies, isComplete } = current;
  if (studies.length === 0) {
    fill(byId("results"));
    say(byId("found"), current.none);
    return;
  }
  const shown = isComplete
    ? plural(studies.length, "study", "studies")
    : `The first ${plural(studies.length, "study", "studies")}`;
  const columns = ["Patient", "Born", "Date", "Study", "Accession number", { text: "Series", number: true }];
  say(byId("found"), `${shown}. Open one to see where its images are.`);
  fill(
    byId("results"),
    table("Studies that were found", columns, studies.map(studyRow)),
    !isComplete &&
      el(
        "p",
        { class: "more" },
        button(`Show ${PAGE} more`, { "data-testid": "more-studies", "data-key": "more-studies" }, (event) => {
          event.currentTarget.disabled = true;
          continueSearch(current);
        }),
      ),
  );
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const query = enteredQuery();
  const none =
    Object.keys(query).length === 0
      ? "Orthanc has no study yet."
      : "No study was found. Enter less: the beginning of a number, or a part of the name.";
  startSearch((since) => findPage(query, since), none);
});

/// Shows the studies of one patient, or the study if there is only one.
async function showPatient(id) {
  location.replace("#studies");
  fill(byId("results"));
  say(byId("found"), "Searching…");
  try {
    const patient = await get(`patients/${encodeURIComponent(id)}`, "open this patient");
    if (patient.Studies.length === 1) {
      location.replace(`#study=${encodeURIComponent(patient.Studies[0])}`);
      return;
    }
    byId("search-patient-id").value = patient.MainDicomTags.PatientID ?? "";
    const next = (since) =>
      inTurn(patient.Studies.slice(since, since + PAGE), (study) =>
        get(`studies/${encodeURIComponent(study)}`, "open a study of this patient"),
      );
    await startSearch(next, "This patient has no study.");
  } catch (error) {
    fill(byId("found"), sign("error", error.message));
  }
}

/// Runs `action` for each item, a few at once. The results are in the order of the items.
async function inTurn(items, action, atOnce = 4) {
  const results = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const index = next;
      next += 1;
      results[index] = await action(items[index]);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}

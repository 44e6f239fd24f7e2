// What earlier jobs have found.

/// Findings of one page.
const FINDINGS = 50;

function reportRow(report) {
  const [kind, word] = JOB_STATES[report.State] ?? ["unknown", report.State];
  const isWrong = report.State === "Success" && report.Findings > 0;
  const found = report.Findings > 0 ? plural(report.Findings, "finding") : "Nothing found";
  const name = jobName(report.Type, report);
  const id = report.JobId && encodeURIComponent(report.JobId);
  const date = parseTime(report.Started);
  return {
    attributes: { "data-report": report.JobId, "data-state": report.State },
    cells: [
      [
        id ? el("a", { href: `#report=${id}`, "data-key": id }, name) : name,
        el(
          "div",
          { class: "sub" },
          [report.Everything && "the whole archive", report.Scheduled && "by schedule"].filter(Boolean).join(", "),
        ),
      ],
      date ? when(date) : "",
      sign(kind, word),
      sign(isWrong ? "warning" : report.Findings > 0 ? "error" : report.State === "Success" ? "ok" : "unknown", found),
      jobCounts(report.Type, { ...report, Failures: 0 }).map((sentence) => el("div", {}, sentence)),
    ],
  };
}

const reportsPoll = new Poll(
  30,
  () => view === "reports",
  async () => {
    try {
      const reports = await get("object-storage/reports", "list the reports");
      if (reports.length === 0) {
        fill(
          byId("reports"),
          note("There is no report yet. Each job of the plugin writes one: start a verification on the page Jobs.", {
            "data-testid": "reports-empty",
          }),
        );
        return;
      }
      fill(
        byId("reports"),
        table(
          "Reports of jobs, the newest first",
          ["Job", "Started", "State", "Found", "Done"],
          reports.map(reportRow),
        ),
      );
    } catch (error) {
      if (!byId("reports").firstChild) fill(byId("reports"), note(error.message));
      throw error;
    }
  },
);

/// The levels of Orthanc's resources, as its addresses name them.
const LEVELS = { Studies: "study", Series: "series", Patients: "patient" };

/// The report that is shown.
let shownReport = null;

async function openReport({ id }) {
  const current = { id, summary: null, findings: [] };
  shownReport = current;
  fill(byId("report"), note("Loading…", { class: "loading" }));
  await continueReport(current);
}

async function continueReport(current) {
  try {
    const path = `object-storage/reports/${encodeURIComponent(current.id)}?since=${current.findings.length}&limit=${FINDINGS}`;
    const page = await get(path, "read this report");
    if (shownReport !== current) return;
    current.summary = page.Summary;
    current.findings.push(...page.Findings);
    showReport(current);
  } catch (error) {
    if (shownReport !== current) return;
    const text =
      error.status === 404 ? "There is no such report: only those of the last jobs are kept." : error.message;
    fill(byId("report"), sign("error", text));
  }
}

function findingRow(finding) {
  const level = LEVELS[finding.Level];
  const id = finding.Resource && encodeURIComponent(finding.Resource);
  let resource = finding.Object ?? "";
  if (level && id) resource = el("a", { href: `#${level}=${id}` }, `Open the ${level}`);
  else if (finding.Level === "Instances" && id) {
    resource = button("Open the study", { class: "link" }, (event) =>
      act(event.currentTarget, byId("report-said"), async () => {
        const study = await get(`instances/${id}/study`, "open the study of this file");
        location.hash = `#study=${encodeURIComponent(study.ID)}`;
      }),
    );
  }
  return {
    attributes: { "data-testid": "finding", "data-problem": finding.Problem },
    cells: [
      [finding.Name ?? "object", el("div", { class: "sub mono" }, finding.Uuid ?? "")],
      resource,
      [sentence(finding.Error), finding.Object && el("div", { class: "sub mono" }, finding.Object)],
      sentence(finding.Advice) || "See the message.",
    ],
  };
}

function showReport(current) {
  const { summary, findings } = current;
  const [kind, word] = JOB_STATES[summary.State] ?? ["unknown", summary.State];
  const started = parseTime(summary.Started);
  const ended = parseTime(summary.Ended);
  const facts = [
    ["Job", jobName(summary.Type, summary)],
    ["State", sign(kind, word)],
    ["Started", started ? when(started) : "–"],
    ["Ended", ended ? when(ended) : "–"],
    ["Done", jobCounts(summary.Type, { ...summary, Failures: 0 }).join(", ") || "–"],
    // A folder only if there is one.
    summary.Place && ["Place", summary.Place.replace(/\/?, root ""$/, "")],
  ].filter(Boolean);
  const rest = Math.min(summary.FindingsWritten ?? summary.Findings, summary.Findings) - findings.length;
  fill(
    byId("report"),
    el(
      "dl",
      { class: "facts plain" },
      facts.map(([label, value]) => el("div", {}, el("dt", {}, label), el("dd", { class: "value" }, value))),
    ),
    summary.Error && el("p", {}, sign("error", sentence(summary.Error))),
    el("h3", { class: "gap" }, summary.Findings > 0 ? plural(summary.Findings, "finding") : "Nothing was found"),
    summary.DeletionRefused && el("p", {}, sign("warning", sentence(summary.DeletionRefused))),
    findings.length > 0 &&
      table("Findings of the job", ["File", "Belongs to", "What is wrong", "What to do"], findings.map(findingRow), {
        class: "findings",
      }),
    rest > 0 &&
      el(
        "p",
        { class: "more" },
        button(
          `Show ${Math.min(rest, FINDINGS)} more of ${count(rest)}`,
          { "data-testid": "more-findings", "data-key": "more-findings" },
          (event) => {
            event.currentTarget.disabled = true;
            continueReport(current);
          },
        ),
      ),
  );
}

openers.report = openReport;

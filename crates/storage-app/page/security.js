// How the archive is encrypted, and the audit of the configuration.

function formName(form) {
  const names = {
    clear: "Not encrypted by the plugin",
    "key-vault-cbc": "Encrypted by the earlier plugin for Azure Key Vault",
    archived: "In an archive tier, form unknown",
  };
  return names[form.Format] ?? `Encrypted, format ${form.Format}`;
}

function showCensus() {
  const census = status.Census;
  if (!census) {
    fill(
      byId("census"),
      note(
        "Not known yet: the first verification or re-encryption of the whole archive counts the forms of all files.",
        { "data-testid": "census-empty" },
      ),
    );
    return;
  }
  if (census.Error) {
    fill(byId("census"), sign("error", census.Error));
    return;
  }
  const total = census.Forms.reduce((sum, form) => sum + form.Copies, 0);
  const rows = census.Forms.map((form) => ({
    attributes: { "data-format": form.Format },
    cells: [
      formName(form),
      form.Key ? `key ${form.Key}` : "–",
      count(form.Copies),
      bytes(form.Bytes),
      percent(form.Copies / (total || 1)),
    ],
  }));
  const columns = [
    "Form",
    "Key",
    { text: "Copies", number: true },
    { text: "Size", number: true },
    { text: "Share", number: true },
  ];
  fill(
    byId("census"),
    el(
      "p",
      { class: "muted" },
      `Counted by the job that started ${ago(census.Started)}. What has changed since is not in it.`,
    ),
    rows.length > 0 ? table("Forms of all stored copies", columns, rows) : note("The archive was empty."),
  );
}

const AREAS = {
  general: "Machine and general options",
  http: "Web server",
  dicom: "DICOM server",
  storage: "Bucket and disk",
};
const SEVERITIES = { critical: ["error", "Critical"], warning: ["warning", "Warning"], ok: ["ok", "In order"] };

function auditRow(finding) {
  const [kind, word] = SEVERITIES[finding.Severity] ?? ["unknown", finding.Severity];
  return {
    attributes: { "data-finding": finding.Id, "data-severity": finding.Severity },
    cells: [sign(kind, word), el("span", { class: "mono" }, finding.Option), finding.Value, sentence(finding.Advice)],
  };
}

function showAudit(answer) {
  const findings = Array.isArray(answer) ? answer : answer.Findings;
  const number = (severity) => findings.filter((finding) => finding.Severity === severity).length;
  const critical = number("critical");
  const warnings = number("warning");
  // The plugin uses the answers of the bucket again for a while.
  const asked = parseTime(answer.BucketCheckedAt);
  const time = asked ? ` The bucket was asked at ${when(asked)}.` : "";
  const summary =
    critical + warnings === 0
      ? sign("ok", `All ${plural(findings.length, "check")} are in order.${time}`)
      : sign(
          critical > 0 ? "error" : "warning",
          `${plural(critical, "critical finding")}, ${plural(warnings, "warning")}, ${count(number("ok"))} in order.${time}`,
        );
  const order = Object.keys(SEVERITIES);
  const groups = Object.entries(AREAS).map(([area, title]) => {
    const rows = findings.filter((finding) => finding.Area === area);
    rows.sort((a, b) => order.indexOf(a.Severity) - order.indexOf(b.Severity));
    return (
      rows.length > 0 && [
        el("h4", {}, title),
        table(title, ["Severity", "Option", "Value", "What to do"], rows.map(auditRow), { class: "audit" }),
      ]
    );
  });
  fill(byId("audit-said"), summary);
  fill(byId("audit"), groups);
}

byId("run-audit").addEventListener("click", async (event) => {
  const pressed = event.currentTarget;
  say(byId("audit-said"), "Checking… The plugin also asks the bucket, which can take some seconds.");
  const answer = await act(pressed, byId("audit-said"), () => get("object-storage/audit", "run the audit"));
  if (!answer) return;
  say(pressed, "Run the audit again");
  showAudit(answer);
});

openers.security = () => {
  if (status) showCensus();
  if (!byId("audit-said").firstChild) {
    say(byId("audit-said"), "Compares the running configuration with the guide for securing Orthanc. Changes nothing.");
  }
};

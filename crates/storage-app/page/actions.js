// What can be done with a study, and how the jobs for it are doing.

/// Tiers of restores, by the provider.
const TIERS = {
  AwsS3Storage: [
    ["Standard", "Standard: within hours"],
    ["Bulk", "Bulk: cheaper, within two days"],
    ["Expedited", "Expedited: within minutes, at a higher price"],
  ],
  AzureBlobStorage: [
    ["Standard", "Standard: within 15 hours"],
    ["High", "High: often within an hour, at a higher price"],
  ],
};

/// Whether the plugin has a feature. Plugins without `Features` show it by their mode.
function has(feature) {
  if (status?.Features) return status.Features[feature] === true;
  return {
    Move: status !== null && status.HybridMode !== "Disabled",
    Prefetch: Boolean(status?.WriteBack?.Cache),
    Restore: status?.Provider in TIERS,
  }[feature];
}

/// The actions of a study: a button each, with a sentence.
function studyActions(current) {
  // `question` asks the user, and returns fields of the request, or null to do nothing.
  const action = (name, text, sentence, run, question = () => ({})) =>
    el(
      "div",
      {},
      button(text, { "data-action": name, "data-key": name }, async (event) => {
        const pressed = event.currentTarget;
        const fields = await question();
        if (fields) await act(pressed, current.said, () => run(fields));
      }),
      el("p", {}, sentence),
    );
  return [
    has("Prefetch") &&
      action(
        "prefetch",
        "Prefetch",
        "Copies the study from the bucket to the cache, so that it opens without a download.",
        () => begin(current, "object-storage/prefetch", {}, "copy the study to the cache"),
      ),
    has("Move") &&
      action("upload", "Upload now", "Uploads what is only on the disk, without waiting for its turn.", () =>
        begin(current, "move-storage", { TargetStorage: "object-storage" }, "upload the study"),
      ),
    action(
      "verify",
      "Verify",
      "Checks that each file is stored with the right size and checksum. Changes nothing.",
      () => begin(current, "object-storage/verify", { Depth: "checksum" }, "verify the study"),
    ),
    has("Restore") &&
      action(
        "restore",
        "Restore…",
        "Makes files readable that are in an archive tier. The provider charges for it.",
        (fields) => begin(current, "object-storage/restore", fields, "restore the study"),
        askToRestore,
      ),
  ];
}

/// Asks how to restore a study. Returns the fields of the request, or null.
async function askToRestore() {
  const tiers = TIERS[status.Provider];
  const days = { name: "Days", label: "Keep the readable copies for how many days", min: 1, max: 3650, value: 7 };
  const answer = await ask({
    title: "Restore this study from its archive tier?",
    text: [
      "The provider charges for each file that is restored, and for its bytes. A restore takes from minutes to two days, and cannot be cancelled.",
      "Files that can be read already are left as they are.",
    ],
    agree: "Restore the study",
    fields: [
      { name: "Tier", label: "How fast", options: tiers, value: "Standard" },
      ...(status.Provider === "AwsS3Storage" ? [days] : []),
    ],
  });
  return answer && { Tier: answer.Tier, ...(answer.Days ? { Days: Number(answer.Days) } : {}) };
}

/// Starts a job for a study, and shows it until it ends.
async function begin(current, path, fields, what) {
  fill(current.said);
  const { ID: id } = await post(path, { Resources: [current.study.ID], Asynchronous: true, ...fields }, what);
  const activity = { id, job: null, isOver: false, item: el("li", { "data-job": id }) };
  current.activities.unshift(activity);
  current.list.prepend(activity.item);
  showActivity(activity);
  activityPoll.now();
}

/// What the job of an activity has done, in a sentence.
function outcome(job) {
  const content = job.Content ?? {};
  const counts = jobCounts(job.Type, content).join(", ");
  if (job.State === "Failure") return sentence(content.Error || job.ErrorDescription || "It failed.");
  if (job.State === "Canceled") return "It was cancelled.";
  const first = content.FailedAttachments?.[0];
  return [counts && `${counts}.`, first && `First problem: ${sentence(first.Error)}`].filter(Boolean).join(" ");
}

function showActivity(activity) {
  const { job, item } = activity;
  if (!job) {
    fill(item, sign("busy", "Started"));
    return;
  }
  const name = jobName(job.Type, job.Content);
  const failures = (job.Content?.Failures ?? 0) > 0;
  const [kind, word] = stateOf(job);
  item.setAttribute("data-state", job.State);
  const text = isOver(job.State) ? outcome(job) : "";
  const shown = `${name}: ${word.toLowerCase()}${text ? `. ${text}` : ""}`;
  const report =
    isOver(job.State) && failures && el("a", { href: `#report=${encodeURIComponent(job.ID)}` }, "Open the report");
  const bar =
    !isOver(job.State) && el("progress", { max: 100, value: job.Progress, "aria-label": `Progress of ${name}` });
  fill(item, el("div", {}, sign(failures && kind === "ok" ? "warning" : kind, shown)), report || bar || null);
}

const unfinished = () => (opened?.activities ?? []).filter((activity) => !activity.isOver);

const activityPoll = new Poll(
  1.5,
  () => view === "study" && unfinished().length > 0,
  async () => {
    const current = opened;
    for (const activity of unfinished()) {
      try {
        activity.job = await get(`jobs/${encodeURIComponent(activity.id)}`, "read the state of the job");
      } catch (error) {
        if (error.status !== 404) throw error;
        // Orthanc forgets jobs that have ended.
        activity.isOver = true;
        fill(activity.item, sign("unknown", "Ended. Orthanc has forgotten the job: look at its report."));
        continue;
      }
      if (isOver(activity.job.State)) activity.isOver = true;
      showActivity(activity);
      if (activity.isOver && opened === current) lookAgain(current);
    }
  },
);

// The overview: what state the storage is in, from `status` alone, which never waits for the bucket.

/// The last answer of `status`, which the other views need, too.
let status = null;

const MODES = {
  Disabled: ["Bucket only", "Each file is in the bucket before Orthanc confirms it."],
  WriteToFileSystem: ["Disk first", "New files are stored on the disk. Move them to the bucket when you want."],
  WriteToObjectStorage: ["Bucket first", "New files are stored in the bucket. Files on the disk are still read."],
  WriteBack: ["Disk, then bucket", "New files are stored on the disk, and uploaded in the background."],
};

const CLOUDS = { AwsS3Storage: "S3", AzureBlobStorage: "Azure", GoogleCloudStorage: "Google Cloud" };

/// One fact: a label, a value, and a sentence that explains it.
const fact = (id, label, value, detail, extra = null) =>
  el(
    "div",
    { "data-testid": id },
    el("dt", {}, label),
    el("dd", {}, el("div", { class: "value" }, value), extra, el("div", { class: "detail" }, detail)),
  );

/// The state in one word, and the problems with a sentence each. Older plugins have no `State`.
function showState() {
  const problems = status.Problems ?? [];
  const state = status.State ?? (problems.length > 0 ? "warning" : "ok");
  const words = { ok: "Everything works", warning: "Needs attention", error: "Needs action now" };
  const kind = words[state] ? state : "unknown";
  const pill = byId("state");
  pill.hidden = false;
  pill.className = `pill ${kind}`;
  const word = words[state] ?? state;
  if (pill.textContent !== word) fill(pill, sign(kind, word));
  const items = problems.map((problem) => {
    const severity = problem.Severity ?? state;
    return el(
      "li",
      { class: severity, "data-problem": problem.Id },
      icon(severity === "error" ? "error" : "warning"),
      el(
        "p",
        {},
        el("span", { class: "hidden" }, severity === "error" ? "Error: " : "Warning: "),
        sentence(withLocalTimes(problem.Text)),
      ),
    );
  });
  if (items.length === 0) {
    items.push(el("li", { class: "ok" }, icon("ok"), el("p", {}, "Images are stored and read without problems.")));
  }
  const list = el("ul", { class: "problems" }, items);
  const place = byId("problems");
  if (place.textContent === list.textContent) return;
  // Screen readers read new problems, and not each minute how long they have lasted.
  const shown = problems.map(({ Id, Severity }) => `${Id} ${Severity}`).join();
  place.setAttribute("aria-live", place.dataset.shown === shown ? "off" : "polite");
  place.dataset.shown = shown;
  fill(place, list);
}

function backlog() {
  const writeBack = status.WriteBack;
  if (!writeBack) {
    return fact(
      "backlog",
      "Waiting for upload",
      "Nothing",
      "Orthanc confirms a file only when it is where it belongs.",
    );
  }
  const { Pending: pending, PendingBytes: size, OldestSeconds: oldest, Uploading: uploading } = writeBack;
  const counting = writeBack.IsCounting ? " The files of an earlier start are still being counted." : "";
  if (pending === 0) {
    return fact("backlog", "Waiting for upload", "Nothing", `Everything that is stored is in the bucket.${counting}`);
  }
  const since = oldest === null ? "" : ` The oldest has been waiting for ${duration(oldest)}.`;
  const outage = writeBack.BucketWorks
    ? `${plural(uploading, "upload")} in progress.`
    : "They are on the disk only, and uploaded when the bucket works again.";
  return fact(
    "backlog",
    "Waiting for upload",
    `${plural(pending, "file")}, ${bytes(size)}`,
    `${outage}${since}${counting}`,
  );
}

function cache() {
  const shown = status.WriteBack?.Cache;
  if (!shown) return fact("cache", "Cache", "None", "Each read gets the file from where it is stored.");
  const asked = shown.Hits + shown.Misses;
  const used = el("progress", {
    max: shown.MaxBytes || 1,
    value: Math.min(shown.Bytes, shown.MaxBytes),
    "aria-label": "Used space of the cache",
  });
  const hits =
    asked === 0
      ? "Nothing has been looked up in it since the start."
      : `${percent(shown.Hits / asked)} of ${plural(asked, "lookup")} since the start found the file in it.`;
  return fact("cache", "Cache on the disk", `${bytes(shown.Bytes)} of ${bytes(shown.MaxBytes)}`, hits, used);
}

function deletions() {
  const { Pending: pending, OldestSeconds: oldest } = status.Deletions;
  if (!pending)
    return fact(
      "deletions",
      "Waiting for deletion",
      "Nothing",
      "What Orthanc has deleted is deleted from the storage.",
    );
  return fact(
    "deletions",
    "Waiting for deletion",
    plural(pending, "file"),
    `Deleted in Orthanc, and soon in the storage. The oldest has been waiting for ${duration(oldest)}.`,
  );
}

function encryption() {
  const facts = status.Encryption;
  if (!facts || facts.Enabled === false) {
    return fact(
      "encryption",
      "Encryption by the plugin",
      "Off",
      "New files are encrypted only as the bucket does it by itself.",
    );
  }
  const key = facts.KeyService ? `keys in ${facts.KeyService}` : `key ${facts.MasterKeyId}`;
  return fact(
    "encryption",
    "Encryption by the plugin",
    `On, format ${facts.Format}`,
    `New files are encrypted before they leave this machine, with ${key}.`,
  );
}

function verification() {
  const { Last: job, NextDue: next } = status.Verification ?? {};
  const ended = job?.Ended ?? null;
  if (!ended) {
    return fact(
      "verification",
      "Last verification",
      "Never",
      "No complete check of the archive is known. Start one on the page Jobs.",
    );
  }
  const failures = job.Failures ?? 0;
  const due = parseTime(next);
  const found =
    (failures === 0 ? "It has found no problem." : `It has found ${plural(failures, "problem")}: see Reports.`) +
    (due ? ` The next one is due ${when(due)}.` : "");
  return fact("verification", "Last verification", ago(ended), found);
}

/// When a request of a kind has worked and failed last.
function lastOf(name) {
  const last = status.Last?.[name];
  if (!last || (!last.Success && !last.Failure)) return [null, "None since the start."];
  const failed = last.Failure && (!last.Success || parseTime(last.Failure) > parseTime(last.Success));
  return failed ? [ago(last.Failure), "The last one failed."] : [ago(last.Success), "The last one worked."];
}

function requests() {
  const { Create: create, Read: read, ReadRange: range } = status.Requests;
  const reads = read.Count + range.Count;
  const [stored, storedHow] = lastOf("Create");
  const [seen, seenHow] = lastOf("Read");
  return [
    fact(
      "stores",
      "Stored since the start",
      plural(create.Count - create.Failures, "file"),
      stored ? `Last ${stored}. ${storedHow}` : storedHow,
    ),
    fact(
      "reads",
      "Read since the start",
      plural(reads - read.Failures - range.Failures, "read"),
      seen ? `Last ${seen}. ${seenHow}` : seenHow,
    ),
  ];
}

function showStatus() {
  const cloud = CLOUDS[status.Provider] ?? status.Provider;
  const [mode, explained] = MODES[status.HybridMode] ?? [status.HybridMode, ""];
  const server = (status.Endpoint ?? "").replace(/^https?:\/\/|\/$/g, "");
  say(
    byId("identity"),
    `${status.Bucket.replace(/^\w+:\/\//, "")}${status.RootPath ? `, folder ${status.RootPath}` : ""}, ${cloud} at ${server}`,
  );
  say(byId("about"), `${status.Plugin} ${status.Version}, running for ${duration(status.UptimeSeconds)}.`);
  showState();
  fill(
    byId("facts"),
    el(
      "dl",
      { class: "facts" },
      backlog(),
      cache(),
      deletions(),
      verification(),
      requests(),
      encryption(),
      fact("mode", "Where new files go", mode, explained),
    ),
  );
  if (view === "security") showCensus();
}

const statusPoll = new Poll(
  6,
  () => true,
  async () => {
    try {
      status = await get("object-storage/status", "read the state of the storage");
      showStatus();
    } catch (error) {
      // What was shown is from before, which the banner says, unless Orthanc refuses the user now.
      if (error.status !== 0 && isReached) status = null;
      if (status === null) {
        byId("state").hidden = true;
        fill(byId("problems"));
        delete byId("problems").dataset.shown;
        fill(byId("facts"), note(error.message, { "data-testid": "facts-error" }));
      }
      throw error;
    }
  },
);

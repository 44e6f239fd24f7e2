// The plugin's jobs: their progress, and starting, pausing and cancelling them.

/// What a job of each type does, for people.
const JOB_TYPES = {
  VerifyStorage: "Verification",
  FindOrphans: "Search for orphans",
  ReencryptStorage: "Re-encryption",
  RestoreStorage: "Restore from an archive tier",
  PrefetchStorage: "Prefetch to the cache",
  MoveStorage: "Move",
};
const JOB_STATES = {
  Pending: ["busy", "Waiting for its turn"],
  Running: ["busy", "Running"],
  Paused: ["warning", "Paused"],
  Success: ["ok", "Done"],
  Failure: ["error", "Failed"],
  Retry: ["warning", "Will be tried again"],
  Canceled: ["unknown", "Cancelled"],
};
const isOver = (state) => state === "Success" || state === "Failure" || state === "Canceled";

/// The icon and the words for the state of a job. A restore that waits is paused by the plugin between its looks.
function stateOf(job) {
  if (job.Type === "RestoreStorage" && job.State === "Paused" && job.Content?.Wait !== false) {
    return ["busy", "Waiting for the provider"];
  }
  return JOB_STATES[job.State] ?? ["unknown", job.State];
}

/// The name of a job, with its direction.
function jobName(type, content = {}) {
  if (type === "MoveStorage")
    return content.TargetStorage === "object-storage" ? "Upload to the bucket" : "Move to the disk";
  return JOB_TYPES[type] ?? type;
}

/// What a job is for.
function jobScope(content) {
  if (content.Everything) return "the whole archive";
  const counts = Object.entries(content.Resources ?? {}).map(([level, ids]) => {
    const names = {
      Patients: ["patient", "patients"],
      Studies: ["study", "studies"],
      Series: ["series", "series"],
      Instances: ["instance", "instances"],
    };
    return plural(ids.length, ...(names[level] ?? [level]));
  });
  return counts.join(", ") || "the whole archive";
}

/// What a job or its report has counted, as sentences.
function jobCounts(type, content) {
  const counts = {
    VerifyStorage: () => [
      content.VerifiedAttachments !== undefined &&
        `${plural(content.VerifiedAttachments, "file")} without a problem (${bytes(content.VerifiedBytes)})`,
      content.Archived > 0 && `${plural(content.Archived, "file")} in an archive tier, whose content was not checked`,
    ],
    FindOrphans: () => [
      content.Objects !== undefined && `${plural(content.Objects, "object")} in the bucket`,
      content.OrphanObjects !== undefined &&
        `${plural((content.OrphanObjects ?? 0) + (content.OrphanFiles ?? 0), "orphan")} (${bytes((content.OrphanBytes ?? 0) + (content.OrphanFileBytes ?? 0))})`,
      content.DeletedObjects > 0 && `${count(content.DeletedObjects)} deleted`,
    ],
    ReencryptStorage: () => [
      content.Rewritten !== undefined && `${plural(content.Rewritten, "file")} encrypted again`,
      content.AlreadyCurrent > 0 && `${count(content.AlreadyCurrent)} had the present form`,
    ],
    RestoreStorage: () => [
      content.RestoresBegun !== undefined && `${plural(content.RestoresBegun, "restore")} begun`,
      content.AlreadyReadable > 0 && `${plural(content.AlreadyReadable, "file")} can be read without a restore`,
      content.ReadableNow > 0 && `${plural(content.ReadableNow, "file")} can be read now`,
    ],
    MoveStorage: () => [
      content.MovedAttachments !== undefined &&
        `${plural(content.MovedAttachments, "file")} moved (${bytes(content.MovedBytes)})`,
      content.AlreadyThere > 0 && `${count(content.AlreadyThere)} were there already`,
    ],
    PrefetchStorage: () => [
      content.MovedAttachments !== undefined &&
        `${plural(content.MovedAttachments, "file")} copied (${bytes(content.MovedBytes)})`,
      content.AlreadyThere > 0 && `${count(content.AlreadyThere)} were there already`,
    ],
  };
  const sentences = (counts[type]?.() ?? []).filter(Boolean);
  const failures = content.Failures ?? 0;
  if (failures > 0) sentences.push(plural(failures, "problem"));
  return sentences;
}

/// Sends what a button asks for, and says in `place` if it fails.
async function act(pressed, place, action) {
  pressed.disabled = true;
  if (place.querySelector(".sign.error")) fill(place);
  try {
    return await action();
  } catch (error) {
    fill(place, sign("error", error.message));
    return null;
  } finally {
    pressed.disabled = false;
  }
}

const JOB_ACTIONS = {
  pause: ["Pause", "pause the job"],
  resume: ["Resume", "resume the job"],
  cancel: ["Cancel", "cancel the job"],
  resubmit: ["Start again", "start the job again"],
};

/// The buttons that a job in this state has.
function jobButtons(job) {
  const isWaiting = job.Type === "RestoreStorage" && job.Content?.Wait !== false;
  const actions =
    {
      Pending: ["pause", "cancel"],
      Running: isWaiting ? ["cancel"] : ["pause", "cancel"],
      Paused: isWaiting ? ["cancel"] : ["resume", "cancel"],
      Retry: ["cancel"],
      Failure: ["resubmit"],
    }[job.State] ?? [];
  const name = jobName(job.Type, job.Content);
  return el(
    "div",
    { class: "buttons" },
    actions.map((action) => {
      const [text, what] = JOB_ACTIONS[action];
      return button(
        text,
        { "data-action": action, "data-key": `${action}-${job.ID}`, "aria-label": `${text}: ${name}` },
        async (event) => {
          await act(event.currentTarget, byId("jobs-said"), () =>
            post(`jobs/${encodeURIComponent(job.ID)}/${action}`, {}, what),
          );
          jobsPoll.now();
        },
      );
    }),
  );
}

function jobRow(job) {
  const [kind, word] = stateOf(job);
  const content = job.Content ?? {};
  const counts = jobCounts(job.Type, content);
  const failures = content.Failures > 0 && job.State === "Success";
  const bar =
    !isOver(job.State) &&
    el("progress", { max: 100, value: job.Progress, "aria-label": `Progress of ${jobName(job.Type, content)}` });
  const created = parseTime(job.CreationTime);
  return {
    attributes: { "data-job": job.ID, "data-state": job.State, "data-type": job.Type },
    cells: [
      [el("span", {}, jobName(job.Type, content)), el("div", { class: "sub" }, jobScope(content))],
      [
        sign(failures ? "warning" : kind, isOver(job.State) ? word : `${word}, ${count(job.Progress)} %`),
        bar,
        content.WaitingFor && el("div", { class: "sub" }, "Waits for another job."),
        (content.Error || job.State === "Failure") &&
          el("div", { class: "sub" }, sentence(content.Error || job.ErrorDescription)),
      ],
      [
        counts.map((sentence) => el("div", {}, sentence)),
        isOver(job.State) &&
          job.Type !== "MoveStorage" &&
          job.Type !== "PrefetchStorage" &&
          job.State !== "Canceled" &&
          el("a", { href: `#report=${encodeURIComponent(job.ID)}`, "data-key": `report-${job.ID}` }, "Report"),
      ],
      created ? when(created) : "",
      jobButtons(job),
    ],
  };
}

/// The jobs that are shown.
let shownJobs = "";

/// Shows the jobs, unless they are those that are shown: a new table would end a selection or a click.
function showJobs(all) {
  const jobs = all.filter((job) => job.Type in JOB_TYPES);
  const answer = JSON.stringify(jobs);
  if (answer === shownJobs) return;
  shownJobs = answer;
  jobs.sort((a, b) => isOver(a.State) - isOver(b.State) || (a.CreationTime < b.CreationTime ? 1 : -1));
  if (jobs.length === 0) {
    fill(
      byId("jobs"),
      note("Orthanc has no job of this plugin now. Jobs that ended earlier are on the page Reports.", {
        "data-testid": "jobs-empty",
      }),
    );
    return;
  }
  fill(
    byId("jobs"),
    table("Jobs of the plugin", ["Job", "State", "Done so far", "Created", "Actions"], jobs.map(jobRow), {
      class: "jobs",
    }),
  );
}

const jobsPoll = new Poll(
  5,
  () => view === "jobs",
  async () => {
    try {
      // Orthanc keeps only the last jobs that have ended: JobsHistorySize, 10 by default.
      showJobs(await get("jobs?expand", "list the jobs"));
    } catch (error) {
      if (!byId("jobs").firstChild) fill(byId("jobs"), note(error.message));
      shownJobs = "";
      throw error;
    }
  },
);

const DEPTHS = [
  ["exists", "Each file exists"],
  ["size", "Each file exists and has the right size"],
  ["checksum", "Compare checksums where the server knows them"],
  ["content", "Read and check the whole content"],
];

byId("verify-all").addEventListener("click", async (event) => {
  const pressed = event.currentTarget;
  const answer = await ask({
    title: "Verify the whole archive?",
    text: [
      "Each file of the archive is looked for in its storage. The job runs in the background, gives way to users, and changes nothing.",
      "Each file costs at least one request to the bucket. Reading the whole content also costs what the provider charges for downloads.",
    ],
    agree: "Start the verification",
    fields: [{ name: "Depth", label: "How thoroughly", options: DEPTHS, value: "size" }],
  });
  if (!answer) return;
  const job = await act(pressed, byId("jobs-said"), () =>
    post("object-storage/verify", { Depth: answer.Depth, Asynchronous: true }, "start a verification"),
  );
  if (job) say(byId("jobs-said"), "The verification has been started.");
  jobsPoll.now();
});

byId("search-orphans").addEventListener("click", async (event) => {
  const pressed = event.currentTarget;
  const answer = await ask({
    title: "Search the bucket for orphans?",
    text: [
      "The job lists all objects of the bucket, and reports those that belong to no file of Orthanc. It deletes nothing.",
      "The list costs one request for each 1,000 objects.",
    ],
    agree: "Start the search",
  });
  if (!answer) return;
  const job = await act(pressed, byId("jobs-said"), () =>
    post("object-storage/orphans", { Asynchronous: true }, "start a search for orphans"),
  );
  if (job) say(byId("jobs-said"), "The search has been started.");
  jobsPoll.now();
});

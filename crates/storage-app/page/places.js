// Where the files of a series are, and in which form.

/// Files that are looked for at once when a series is shown: each costs a request to the bucket.
const FIRST_FILES = 50;
/// Files of the further requests.
const MORE_FILES = 1000;

/// The places, the worst ones first: an icon, a few words, and a sentence.
const PLACES = {
  missing: ["error", "Missing", "It is in no storage. Verify the study: the report says what to do."],
  archived: ["archive", "In an archive tier", "It must be restored before it can be read."],
  restoring: ["busy", "Being restored", "The provider makes it readable, which can take hours."],
  pending: ["upload", "On the disk, waiting for upload", "It is read from the disk, and not in the bucket yet."],
  "file-system": ["disk", "On the disk", "It is in Orthanc's storage directory only."],
  both: ["disk", "On the disk and in the bucket", "It is read from one of them."],
  cached: ["bucket", "In the bucket and in the cache", "It is in the bucket, and read from the disk."],
  "object-storage": ["bucket", "In the bucket", "It is downloaded when it is read."],
};

/// The place of one file.
function placeOf(file) {
  if (file.Location === "missing") return "missing";
  if (file.Restoring) return "restoring";
  if (file.Archived) return "archived";
  return file.Location in PLACES ? file.Location : "object-storage";
}

/// The form of one file, in words.
function formOf(file) {
  if (file.Location === "missing") return null;
  if (file.Archived) return "unknown while it is archived";
  if (file.Format === "clear") return "not encrypted by the plugin";
  const key = file.KeyId === null || file.KeyId === undefined ? "key in a key service" : `key ${file.KeyId}`;
  return file.Format === "key-vault-cbc" ? "encrypted by the earlier plugin" : `encrypted, ${file.Format}, ${key}`;
}

/// Counts of the files of a series.
class Places {
  constructor() {
    this.asked = 0;
    this.instances = new Set();
    this.places = new Map();
    this.forms = new Map();
    this.size = 0;
    this.hint = null;
    this.readableUntil = null;
    this.isComplete = false;
  }

  add(files, limit) {
    this.asked += files.length;
    this.isComplete = files.length < limit;
    const increase = (counts, key) => key && counts.set(key, (counts.get(key) ?? 0) + 1);
    for (const file of files) {
      if (file.Level === "Instances") this.instances.add(file.Resource);
      increase(this.places, placeOf(file));
      increase(this.forms, formOf(file));
      this.size += file.Size ?? 0;
      this.hint ??= file.Hint;
      const until = parseTime(file.RestoredUntil);
      if (until && (!this.readableUntil || until < this.readableUntil)) this.readableUntil = until;
    }
  }
}

/// Reads where the next files of a series are.
async function locate(series, places, limit) {
  const path = `object-storage/locations/${encodeURIComponent(series)}?since=${places.asked}&limit=${limit}`;
  places.add(await get(path, "look for the files of this series"), limit);
}

/// A list with the places of a series.
function placeList(places) {
  const total = [...places.places.values()].reduce((all, number) => all + number, 0);
  if (total === 0) return note("This series has no file.");
  const items = Object.entries(PLACES)
    .filter(([place]) => places.places.has(place))
    .map(([place, [name, words, sentence]]) => {
      const number = places.places.get(place);
      const text = number === total ? words : `${words}: ${plural(number, "file")}`;
      return el(
        "li",
        { "data-testid": "place", "data-place": place },
        el("span", { class: `sign ${name}` }, icon(name, name), el("span", {}, text)),
        el("div", { class: "sub" }, sentence),
      );
    });
  return el(
    "ul",
    { class: "places" },
    items,
    places.hint && el("li", { class: "sub" }, sentence(places.hint)),
    places.readableUntil &&
      el("li", { class: "sub" }, `The restored copies can be read until ${when(places.readableUntil)}.`),
  );
}

/// The forms of a series.
function formList(places) {
  const forms = [...places.forms];
  if (forms.length === 0) return "–";
  return forms.map(([form, number]) => el("div", {}, forms.length === 1 ? form : `${form}: ${plural(number, "file")}`));
}

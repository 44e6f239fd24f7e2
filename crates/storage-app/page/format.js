// Numbers with units, and times, as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const precise = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

/// 1234567 → "1,234,567".
const count = (number) => whole.format(number ?? 0);

/// "1 file", "2 files".
const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/// A number with at most one digit after the point, below 10.
const short = (number) => (Math.abs(number) < 10 ? precise : whole).format(number);

/// 1577412 → "1.6 MB", in steps of 1,000.
function bytes(number) {
  const units = ["bytes", "kB", "MB", "GB", "TB", "PB"];
  let value = number ?? 0;
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return value === 1 && unit === 0 ? "1 byte" : `${short(value)} ${units[unit]}`;
}

/// 200 → "3 minutes": one unit, as rough as people speak.
function duration(seconds) {
  const value = Math.max(0, seconds ?? 0);
  if (value < 1) return "less than a second";
  for (const [size, name, until] of [
    [1, "second", 90],
    [60, "minute", 5400],
    [3600, "hour", 129600],
  ]) {
    if (value < until) return plural(Math.round(value / size), name);
  }
  return plural(Math.round(value / 86400), "day");
}

/// 12.3 → "12 ms", 2300 → "2.3 s".
const milliseconds = (value) => (value < 1000 ? `${short(value)} ms` : `${short(value / 1000)} s`);

/// 0.961 → "96 %".
const percent = (share) => `${share > 0 && share < 0.1 ? precise.format(100 * share) : whole.format(100 * share)} %`;

/// A message of the server as a sentence. A command or a name at its beginning stays as it is.
function sentence(text) {
  const trimmed = (text ?? "").trim();
  const [first = ""] = trimmed.split(" ");
  if (/^(chmod|chown|icacls)$/.test(first)) return trimmed;
  const begun = /^[a-z]+[,:;]?$/.test(first) ? trimmed[0].toUpperCase() + trimmed.slice(1) : trimmed;
  return begun === "" || /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

const dateTime = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "short" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

/// "2026-11-27 14:05" in the zone of the browser.
const when = (date) => dateTime.format(date);

/// A time of the server, in ISO 8601 or as Orthanc's jobs have it (20201227T161836.428311, in UTC); null if it is none.
function parseTime(text) {
  if (typeof text !== "string") return null;
  const job = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)/.exec(text);
  const date = job ? new Date(Date.UTC(+job[1], job[2] - 1, +job[3], +job[4], +job[5], +job[6])) : new Date(text);
  return Number.isNaN(date.getTime()) ? null : date;
}

/// A sentence of the plugin, with its times in the zone of the browser.
const withLocalTimes = (text) =>
  (text ?? "").replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, (time) => when(parseTime(time)));

/// "3 hours ago" for a time of the server, or another text if there is none.
function ago(text, never = "never") {
  const date = parseTime(text);
  return date ? `${duration((Date.now() - date.getTime()) / 1000)} ago` : never;
}

/// A DICOM date, 20260102 → "2026-01-02"; others stay as they are.
const dicomDate = (text) => (/^\d{8}$/.test(text ?? "") ? text.replace(/(....)(..)(..)/, "$1-$2-$3") : (text ?? ""));

/// A name of a person: DOE^JANE → "DOE, JANE". Its other spellings follow an equals sign, as in DICOM.
function personName(text) {
  const groups = (text ?? "").split("=").map((group) => {
    const [family, ...given] = group.split("^").map((part) => part.trim());
    return [family, given.filter(Boolean).join(" ")].filter(Boolean).join(", ");
  });
  return groups.filter(Boolean).join("=");
}

// Six hours of a hospital that begins to work at seven: the same ones for each picture.
const realFetch = window.fetch;
const MINUTES = 360;

// A number from 0 to 1 that looks random.
const noise = (minute, seed) => Math.abs((Math.sin(minute * 12.9898 + seed * 78.233) * 43758.5453) % 1);
const column = (value) => Array.from({ length: MINUTES }, (_, minute) => value(minute));
const sum = (values) => values.reduce((total, value) => total + value, 0);
const rising = (minute) => Math.min(1, 0.08 + minute / 200);
// For twelve minutes the bucket was slow.
const isSlow = (minute) => minute >= 210 && minute < 222;
const FILE = 526000;

const stores = column((minute) => Math.round(240 * rising(minute) * (0.5 + noise(minute, 1))));
const reads = column((minute) => Math.round(160 * rising(minute) * (0.3 + noise(minute, 2))));
const failures = column((minute) => (isSlow(minute) && minute % 3 === 0 ? 2 : 0));
const hits = reads.map((number, minute) => Math.round(number * (0.72 + 0.2 * noise(minute, 3))));

// The history before a state that has this number of files waiting.
function madeUp(pending) {
  const now = Math.floor(Date.now() / 60000) * 60;
  const none = column(() => 0);
  const waiting = column((minute) => Math.round((isSlow(minute) ? 90 * (minute - 205) : 6 * rising(minute)) * (0.6 + 0.8 * noise(minute, 6))));
  return {
    Since: new Date((now - MINUTES * 60) * 1000).toISOString().replace(/\.\d+/, ""),
    StepSeconds: 60,
    Times: column((minute) => now - (MINUTES - 1 - minute) * 60),
    Create: {
      Requests: stores, Failures: none, Bytes: stores.map((number) => number * FILE),
      MeanMilliseconds: column((minute) => 9 + 6 * noise(minute, 4)),
    },
    Read: {
      Requests: reads, Failures: failures, Bytes: reads.map((number) => number * FILE),
      MeanMilliseconds: column((minute) => (isSlow(minute) ? 180 : 24) * (0.8 + 0.4 * noise(minute, 5))),
    },
    Remove: { Requests: none, Failures: none, MeanMilliseconds: column(() => null) },
    Cache: { Hits: hits, Misses: reads.map((number, minute) => number - hits[minute]), Bytes: none },
    Pending: { Files: [...waiting.slice(0, -1), pending], Bytes: none },
    Deletions: { Pending: none }, Outage: none, Retries: none,
  };
}

// The state of the real Orthanc, with the numbers since a start before these six hours.
function fitting(status) {
  status.UptimeSeconds = MINUTES * 60;
  Object.assign(status.Requests.Create, { Count: sum(stores), Failures: 0 });
  Object.assign(status.Requests.Read, { Count: sum(reads), Failures: sum(failures) });
  Object.assign(status.Requests.ReadRange, { Count: 0, Failures: 0 });
  Object.assign(status.WriteBack.Cache, {
    Hits: sum(hits), Misses: sum(reads) - sum(hits), Bytes: sum(stores) * FILE, MaxBytes: 1e11,
  });
  return status;
}

window.fetch = async (address, options) => {
  const { pathname } = new URL(address, location);
  const isHistory = pathname.endsWith("/object-storage/history");
  if (!isHistory && !pathname.endsWith("/object-storage/status")) return realFetch(address, options);
  const url = isHistory ? String(address).replace(/history.*/, "status") : address;
  const answer = await realFetch(url, options);
  if (!answer.ok) return answer;
  const status = await answer.json();
  const shown = isHistory ? madeUp(status.WriteBack.Pending) : fitting(status);
  return new Response(JSON.stringify(shown), { headers: { "Content-Type": "application/json" } });
};

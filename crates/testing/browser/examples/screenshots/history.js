// Six hours of a hospital that begins to work at seven: the same ones for each picture.
const realFetch = window.fetch;
const MINUTES = 360;

// A number from 0 to 1 that looks random.
const noise = (minute, seed) => Math.abs((Math.sin(minute * 12.9898 + seed * 78.233) * 43758.5453) % 1);
const column = (value) => Array.from({ length: MINUTES }, (_, minute) => value(minute));
const rising = (minute) => Math.min(1, 0.08 + minute / 200);

function madeUp() {
  const now = Math.floor(Date.now() / 60000) * 60;
  const stores = column((minute) => Math.round(240 * rising(minute) * (0.5 + noise(minute, 1))));
  const reads = column((minute) => Math.round(160 * rising(minute) * (0.3 + noise(minute, 2))));
  const hits = reads.map((number, minute) => Math.round(number * (0.72 + 0.2 * noise(minute, 3))));
  // For twelve minutes the bucket was slow.
  const isSlow = (minute) => minute >= 210 && minute < 222;
  const none = column(() => 0);
  return {
    Since: new Date((now - MINUTES * 60) * 1000).toISOString().replace(/\.\d+/, ""),
    StepSeconds: 60,
    Times: column((minute) => now - (MINUTES - 1 - minute) * 60),
    Create: {
      Requests: stores, Failures: none, Bytes: stores.map((number) => number * 526000),
      MeanMilliseconds: column((minute) => 9 + 6 * noise(minute, 4)),
    },
    Read: {
      Requests: reads, Failures: column((minute) => (isSlow(minute) && minute % 3 === 0 ? 2 : 0)),
      Bytes: reads.map((number) => number * 526000),
      MeanMilliseconds: column((minute) => (isSlow(minute) ? 180 : 24) * (0.8 + 0.4 * noise(minute, 5))),
    },
    Remove: { Requests: none, Failures: none, MeanMilliseconds: column(() => null) },
    Cache: { Hits: hits, Misses: reads.map((number, minute) => number - hits[minute]), Bytes: column(() => 4.1e7) },
    Pending: {
      Files: column((minute) => Math.round((isSlow(minute) ? 90 * (minute - 205) : 60 * rising(minute)) * (0.6 + 0.8 * noise(minute, 6)))),
      Bytes: none,
    },
    Deletions: { Pending: none }, Outage: none, Retries: none,
  };
}

window.fetch = (address, options) => String(address).includes("/object-storage/history")
  ? Promise.resolve(new Response(JSON.stringify(madeUp()), { headers: { "Content-Type": "application/json" } }))
  : realFetch(address, options);

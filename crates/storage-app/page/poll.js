// Repeated requests: only while the page is visible, one at a time of each kind; and whether Orthanc can be reached.

/// The view that is shown.
let view = null;
/// What each view does when it is shown, with the id in the address.
const openers = {};

let isReached = true;

/// Notes whether the last request has reached Orthanc, and says so at the top of the page.
function reached(yes) {
  if (yes === isReached) return;
  isReached = yes;
  const banner = byId("banner");
  banner.hidden = yes;
  if (yes) {
    banner.replaceChildren();
    Poll.wake();
  } else {
    fill(byId("state"), sign("unknown", "No answer"));
    byId("state").className = "pill";
    fill(
      banner,
      el(
        "div",
        {},
        icon("error"),
        el(
          "span",
          {},
          "Cannot reach Orthanc. It may be stopped, or the network may be down. Trying again; what you see is from before.",
        ),
      ),
    );
  }
}

/// Runs a request again and again while its view is shown.
class Poll {
  static all = [];

  /// `run` gets an AbortSignal. `isWanted` says whether its view is shown.
  constructor(seconds, isWanted, run) {
    this.pause = seconds * 1000;
    this.isWanted = isWanted;
    this.run = run;
    this.timer = null;
    this.running = null;
    Poll.all.push(this);
  }

  /// Runs the requests that are wanted now.
  static wake() {
    for (const poll of Poll.all) poll.now();
  }

  /// Runs the request now, unless it is running or not wanted.
  now() {
    clearTimeout(this.timer);
    this.timer = null;
    if (document.visibilityState !== "visible" || !this.isWanted() || this.running) return;
    this.running = this.round();
  }

  async round() {
    try {
      await this.run();
    } catch (error) {
      // The view has shown what Orthanc has refused. Anything else is a fault of the page.
      if (!(error instanceof RequestError)) console.error(error);
    } finally {
      this.running = null;
      if (document.visibilityState === "visible" && this.isWanted()) {
        this.timer = setTimeout(() => this.now(), isReached ? this.pause : 3000);
      }
    }
  }
}

document.addEventListener("visibilitychange", () => Poll.wake());

// Which view is shown, and the start of the page.

/// The views with their titles in the browser's history, where no name of a patient belongs.
const TITLES = {
  overview: "Overview",
  studies: "Studies",
  study: "Study",
  jobs: "Jobs",
  reports: "Reports",
  report: "Report",
  security: "Security",
};
const VIEWS = Object.keys(TITLES);
/// The entries of the navigation that views without an entry of their own belong to.
const PARENTS = { study: "studies", report: "reports" };

/// Reads `#study=ID`.
function readAddress() {
  const [[name, id] = ["overview", ""]] = new URLSearchParams(location.hash.slice(1));
  const level = ["patient", "study", "series"].includes(name) ? name : null;
  if (level) return { name: "study", level, id };
  return { name: VIEWS.includes(name) ? name : "overview", id };
}

/// Shows the view of the address.
function route(isFirst = false) {
  const address = readAddress();
  view = address.name;
  for (const name of VIEWS) byId(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    const isCurrent = link.dataset.view === (PARENTS[view] ?? view);
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (openers[view]) openers[view](address);
  document.title = `${TITLES[view]} – Object storage`;
  // So that screen readers and the keyboard continue with the new view.
  if (!isFirst) byId(`title-${view}`).focus({ preventScroll: true });
  Poll.wake();
}

/// Takes the token and the resource out of the address that another page has opened, so that neither is shown or kept in
/// the browser's history.
function takeQuery() {
  const query = new URLSearchParams(location.search);
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const name of TOKENS) {
    const token = query.get(name) || hash.get(name);
    if (token) keepToken(name, token);
    hash.delete(name);
  }
  for (const level of ["patient", "study", "series"]) {
    if (query.get(level)) {
      for (const key of [...hash.keys()]) hash.delete(key);
      hash.set(level, query.get(level));
    }
  }
  // `#jobs` is a parameter without a value.
  const rest = hash.toString().replace(/=$/, "");
  history.replaceState(null, "", `${ROOT}object-storage/app/${rest ? `#${rest}` : ""}`);
}

takeQuery();
addEventListener("hashchange", () => {
  takeQuery();
  route();
});
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("main").focus();
});
route(true);

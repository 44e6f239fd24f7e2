// Requests to Orthanc and the plugin. All addresses are relative to the page, so that it works behind any path prefix.

/// Orthanc's root, with a slash at its end. The page may be open with or without a slash of its own.
const ROOT = location.pathname.replace(/\/object-storage\/app\/?.*$/, "/");

const KEPT_TOKEN = "object-storage-token";

/// Runs something with the browser's storage, which may be switched off.
function stored(action) {
  try {
    return action();
  } catch {
    return null;
  }
}

/// The parameters of an address that have a token, each with the header of the same name, as in Orthanc Explorer 2.
const TOKENS = ["token", "auth-token", "authorization"];

/// The header that the page was opened with: `[name, token]`, or null.
let openedWith = stored(() => JSON.parse(sessionStorage.getItem(KEPT_TOKEN)));

/// Whether a token can be the value of a header: fetch refuses others, so that no request would be sent.
const isHeaderValue = (token) => /^[\x20-\x7e]+$/.test(token);

/// Keeps the token that the page was opened with, for this tab.
function keepToken(name, token) {
  if (!isHeaderValue(token)) return;
  openedWith = [name, token];
  stored(() => sessionStorage.setItem(KEPT_TOKEN, JSON.stringify(openedWith)));
}

/// Forgets the token that the page was opened with.
function dropToken() {
  openedWith = null;
  stored(() => sessionStorage.removeItem(KEPT_TOKEN));
}

/// The headers that identify the user where Orthanc has the authorization plugin. Without a token, the browser's own
/// authentication is used.
function authorization() {
  if (!openedWith) {
    // Orthanc Explorer 2 keeps the token of Keycloak there, and renews it.
    const token = stored(() => localStorage.getItem("vue-token"));
    return !token || token === "null" || token === "undefined" || !isHeaderValue(token) ? {} : { token };
  }
  const [name, token] = openedWith;
  const headers = { [name]: token };
  // It replaces the user's name and password, so only where the address had a JWT.
  if (name === "token" && /^[\w-]+\.[\w-]+\.[\w-]*$/.test(token)) headers.Authorization = `Bearer ${token}`;
  return headers;
}

/// What went wrong with a request, in a sentence for the user. `status` is 0 if there was no answer.
class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/// The sentence for an answer that reports an error.
async function refusal(response, what) {
  const text = await response.text().catch(() => "");
  if (response.status === 401) return `Orthanc does not know you: log in again to ${what}.`;
  if (response.status === 403) return `Your account may not ${what}: ask the administrator of Orthanc.`;
  let detail = text;
  try {
    const json = JSON.parse(text);
    detail = json.Details || json.Message || "";
  } catch {
    // A proxy answers with a web page.
    if (/^\s*</.test(text)) detail = "";
  }
  const reason = detail.trim().slice(0, 500);
  return reason ? sentence(`Orthanc cannot ${what}: ${reason}`) : `Orthanc cannot ${what} (status ${response.status}).`;
}

/// Sends a request, and returns the JSON of its answer. `what` completes the sentence "Orthanc cannot …".
async function request(path, what, options = {}) {
  const init = { cache: "no-store", credentials: "same-origin", redirect: "follow", ...options };
  const sentWith = openedWith;
  init.headers = { Accept: "application/json", ...authorization(), ...options.headers };
  let response;
  try {
    // With the origin: a relative address inherits the user and the password of the page's address, and fetch refuses
    // an address with them.
    response = await fetch(location.origin + ROOT + path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    reached(false);
    throw new RequestError(0, `Cannot reach Orthanc to ${what}.`);
  }
  reached(!isOfProxy(response));
  // The token of a link must not replace the user's own name and password for as long as the tab is open.
  if (response.status === 401 && sentWith) {
    if (openedWith === sentWith) dropToken();
    return request(path, what, options);
  }
  if (!response.ok) throw new RequestError(response.status, await refusal(response, what));
  try {
    return await response.json();
  } catch {
    throw new RequestError(response.status, `The answer to the request to ${what} is not Orthanc's.`);
  }
}

/// Whether the answer is of a proxy that cannot reach Orthanc. The plugin's answers of these statuses are lines of text.
function isOfProxy(response) {
  return [502, 503, 504].includes(response.status) && /html/.test(response.headers.get("Content-Type") ?? "");
}

/// Reads something.
const get = (path, what, options) => request(path, what, options);

/// Sends JSON. Orthanc refuses other bodies of web pages, so that no other site can send one for the user.
function post(path, body, what, options = {}) {
  return request(path, what, {
    ...options,
    method: "POST",
    body: JSON.stringify(body),
    headers: { "Content-Type": "application/json" },
  });
}

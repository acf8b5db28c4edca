// What every form does better with a script: it is sent once, however often its button is pressed, and what was
// typed or chosen outlives the session and the connection: it is not sent before the server says that it will be
// taken. Whoever was logged out logs in in another tab, and sends it then.

const AGAIN_MS = 3000; // a slow double click; an answer that leaves the page, as a download does, may be wanted again
const BESIDE_FILES = 20_000; // bytes of a request
const FRESH_MS = 3000; // after the server was heard: nobody logs out or loses the connection so soon
const TYPED = "textarea, input:is([type=text], [type=date], [type=file])";

const ended = document.querySelector("#session-ended"); // not in pages of those who have no account
const unheard = document.querySelector("#no-answer");
let sent = new WeakMap(); // of forms: what, and when
let heard = performance.now(); // from the server, and that the session goes on

export class LoggedOut extends Error {}

const leadsToLogin = ({ redirected, url }) =>
  redirected && ended?.content.querySelector("a").getAttribute("href") === new URL(url).pathname;

// What to tell whoever is logged out, with the way to log in.
export const saysLoggedOut = () => ended.content.cloneNode(true);

// Give all forms of the page the token that holds now: each login makes a new one. Throws `LoggedOut`, also where
// the server's own machine needs no account: what is sent would bear no name.
async function renew() {
  const response = await fetch(unheard.dataset.ask, { headers: { Accept: "text/html" } });
  if (response.status >= 500) throw new Error(response.statusText);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  if (ended && !page.querySelector("#session-ended")) throw new LoggedOut();
  const token = page.querySelector("[name=csrfmiddlewaretoken]")?.value;
  for (const field of document.querySelectorAll("[name=csrfmiddlewaretoken]")) field.value = token ?? field.value;
  heard = performance.now();
  return token;
}

// Whether the files are more than the server takes at once: it would refuse them before they are all there, and
// the browser would tell of a broken connection.
export const isTooLarge = (form, files) =>
  files.reduce((sum, { size }) => sum + size, BESIDE_FILES) > Number(form.dataset.limit);

// Post the form's data; `LoggedOut` is thrown when the session has ended.
export async function send(address, data, signal) {
  const options = { method: "POST", body: data, headers: { "X-Fragment": "1" }, signal };
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    // What comes without an account is refused before all of a large picture is there.
    if (error.name !== "AbortError") await renew();
    throw error;
  }
  if (leadsToLogin(response)) throw new LoggedOut();
  // Refused for a lacking permission, it would be refused again.
  if (response.status !== 403 || !(await response.clone().text()).includes('id="form-too-old"')) return response;
  data.set("csrfmiddlewaretoken", (await renew()) ?? "");
  return fetch(address, options);
}

async function sendIfHeard(form, submitter) {
  form.querySelector(":scope > .unsent")?.remove();
  try {
    await renew();
    form.requestSubmit(submitter);
  } catch (error) {
    const notice = document.createElement("p");
    notice.className = "notice problem errornote unsent";
    notice.setAttribute("role", "alert");
    notice.append(error instanceof LoggedOut ? saysLoggedOut() : unheard.content.cloneNode(true));
    form.prepend(notice);
    notice.scrollIntoView({ block: "nearest" });
    for (const each of form.querySelectorAll(".busy")) each.classList.remove("busy");
  }
}

// What tells one file from another; a field where none is chosen gives one without a name, made at that moment.
const told = (value) =>
  value instanceof File ? [value.name, value.size, value.name && value.lastModified] : value;

// After the listeners of the page's own scripts, which send some forms themselves.
addEventListener("submit", (event) => {
  const { target: form, submitter } = event;
  if (event.defaultPrevented || form.method !== "post") return;
  const now = performance.now();
  const data = new FormData(form, submitter);
  data.delete("csrfmiddlewaretoken"); // anew with each answer
  const fields = [...data].map(([name, value]) => [name, told(value)]);
  const what = JSON.stringify([submitter?.formAction, fields]);
  const before = sent.get(form);
  if (before?.what === what && now - before.at < AGAIN_MS) event.preventDefault();
  else if (now - heard > FRESH_MS && form.querySelector(TYPED)) {
    event.preventDefault();
    sendIfHeard(form, submitter);
  } else sent.set(form, { what, at: now });
});

// Coming back by the browser's arrow, one finds the form as it can be used.
addEventListener("pageshow", () => {
  sent = new WeakMap();
});

// Whoever types goes on where something was refused.
document.querySelector("main [aria-invalid=true]")?.focus();

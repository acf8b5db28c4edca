// What the inbox does better with a script: one key settles a card, and the next one is there at once,
// because it came with an earlier answer. What was decided is sent in the order in which it was decided.
// Every sentence comes translated from the templates.

import { makePersonField } from "./person-field.js";

const inbox = document.querySelector("#inbox");
const deck = inbox.querySelector("#deck"); // the card that is shown, and those that come next
const said = inbox.querySelector("#said"); // what was done; screen readers hear it
const left = inbox.querySelector("#left");
const nothing = inbox.querySelector("#nothing");
const again = nothing.querySelector("#again");
const undoing = inbox.querySelector("#undo-last");
const keysOn = inbox.querySelector("#keys-on");

const WITHOUT_KEYS = "inbox-without-keys";
const TYPING = "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]";

const unsent = new Set(); // keys of cards that are decided here and not yet there
let sending = Promise.resolve();

const shown = () => deck.firstElementChild;
const had = () => [...unsent, ...(shown() ? [shown().dataset.key] : [])];

// Show the first card, with what is likeliest under the finger.
function show() {
  const card = shown();
  for (const each of deck.children) each.hidden = each !== card;
  nothing.hidden = Boolean(card) || unsent.size > 0;
  const typed = card?.querySelector(".newcomer[open] input[type=text]");
  (typed ?? card?.querySelector(".likeliest") ?? card ?? nothing).focus({ preventScroll: true });
}

function complain(text) {
  const notice = document.createElement("p");
  notice.className = "notice problem";
  notice.textContent = text;
  said.replaceChildren(notice);
}

// The answer to the form's data as a fragment of the page; null after saying what went wrong.
async function ask(address, data) {
  for (const key of had()) data.append("have", key);
  let response;
  try {
    response = await fetch(address, { method: "POST", body: data, headers: { "X-Fragment": "1" } });
  } catch {
    complain(inbox.dataset.noAnswer);
    return null;
  }
  if (response.redirected) {
    unsent.clear();
    location.reload(); // the session has ended
  } else if (response.headers.has("X-Fragment")) {
    const part = document.createElement("div");
    part.innerHTML = await response.text();
    return part.firstElementChild;
  } else complain(inbox.dataset.failed);
  return null;
}

// Take what the answer brings: what was done, how much is left, and the cards behind the one that is
// shown, anew, because what was done may have changed whom they show.
function take(answer) {
  said.replaceChildren(...answer.querySelector(".answer-said").childNodes);
  left.replaceChildren(...answer.querySelector(".answer-left").childNodes);
  for (const place of document.querySelectorAll(".inbox-count")) {
    place.textContent = answer.dataset.left;
    place.hidden = answer.dataset.left === "0";
  }
  undoing.hidden = !answer.dataset.undo;
  again.hidden = !answer.dataset.skipped;
  const here = had();
  const cards = [...answer.querySelectorAll(".card")].filter((card) => !here.includes(card.dataset.key));
  for (const input of cards.flatMap((card) => [...card.querySelectorAll("[data-suggest]")])) makePersonField(input);
  for (const each of [...deck.children].slice(1)) each.remove();
  deck.append(...cards);
}

// One after the other: what is done later may rest on what was done before.
function later(task) {
  sending = sending.then(task).catch(() => complain(inbox.dataset.failed));
}

function decide(card, form, submitter, more = {}) {
  const data = new FormData(form, submitter);
  for (const [name, value] of Object.entries(more)) data.set(name, value);
  const { key } = card.dataset;
  card.remove();
  unsent.add(key);
  show();
  later(async () => {
    const answer = await ask(form.action, data);
    unsent.delete(key);
    const refused = !answer || answer.dataset.refused;
    // What was typed is kept in a card that still waits.
    if (!answer || (refused && answer.querySelector(`[data-key="${key}"]`))) deck.prepend(card);
    if (answer) take(answer);
    if (refused || !shown() || shown().hidden) show();
  });
}

function takeBack() {
  const data = new FormData(undoing);
  later(async () => {
    const before = shown();
    const answer = await ask(undoing.action, data);
    if (!answer) return;
    take(answer);
    if (before && before === shown() && answer.dataset.back) deck.children[1]?.after(before);
    show();
  });
}

inbox.addEventListener("submit", (event) => {
  const card = event.target.closest(".card");
  if (card) decide(card, event.target, event.submitter);
  else if (event.target === undoing) takeBack();
  else return;
  event.preventDefault();
});

// Whoever is chosen while one types is the answer.
deck.addEventListener("person-chosen", (event) => {
  event.preventDefault();
  const { form } = event.target;
  decide(form.closest(".card"), form, null, { act: `assign:${event.detail.key}` });
});

// Whom a new person is called is the first thing to say. At once, and not on "toggle", which comes later:
// letters typed until then would be taken for keys.
deck.addEventListener("click", (event) => {
  const summary = event.target.closest(".newcomer > summary");
  if (!summary) return;
  event.preventDefault();
  const { parentElement: details } = summary;
  details.open = !details.open;
  if (details.open) details.querySelector("input[type=text]").focus();
});

// Keys

function step(card, by) {
  const all = [...card.querySelectorAll("[data-shortcut]")];
  const at = all.indexOf(document.activeElement);
  all.at(at < 0 ? 0 : (at + by) % all.length).focus();
}

// Whether the key meant something.
function press(key) {
  const card = shown();
  const control = card?.querySelector(`[data-shortcut="${CSS.escape(key)}"]`);
  const by = { arrowleft: -1, arrowright: 1 }[key];
  if (control) control.click();
  else if (by && card) step(card, by);
  else if (key === "z" && !undoing.hidden) takeBack();
  else if (key === "?") {
    const help = inbox.querySelector(".keys");
    help.open = !help.open;
    help.querySelector("summary").focus();
  } else return false;
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.isComposing) return;
  if (!event.target.closest(TYPING)) {
    if (keysOn.checked && press(event.key.toLowerCase())) event.preventDefault();
  } else if (event.key === "Escape" && event.target.closest(".newcomer")) {
    event.target.closest(".newcomer").open = false;
    show();
  }
});

// Who speaks to the computer can do without single keys.
keysOn.checked = !localStorage.getItem(WITHOUT_KEYS);
keysOn.addEventListener("change", () => {
  if (keysOn.checked) localStorage.removeItem(WITHOUT_KEYS);
  else localStorage.setItem(WITHOUT_KEYS, "1");
});

// What was decided and is not sent yet would be lost.
addEventListener("beforeunload", (event) => unsent.size && event.preventDefault());

if (shown()) show();

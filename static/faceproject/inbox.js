// What the inbox does better with a script: one key settles a card, and the next one is there at once,
// because it came with an earlier answer. What was decided is sent in the order in which it was decided.
// The card in front changes only by what whoever looks at it does: no key may settle a card that nobody saw.
// Every sentence comes translated from the templates.

import { LoggedOut, saysLoggedOut, send } from "./forms.js";
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
const ROOM_ABOVE = 64; // pixels, for what was said
const DOUBLE_CLICK_MS = 500; // from its first half to the second, at most
const TYPING = "input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]";

const unsent = new Set(); // keys of cards that are decided here and not yet there
let sending = Promise.resolve();
let last = null; // what was decided last, until it is taken back
let returning = 0; // acts that are being taken back
let front = null; // the card that was shown last,
let since = 0; // and when that began

const shown = () => deck.firstElementChild;
const had = () => [...unsent, ...(shown() ? [shown().dataset.key] : [])];

// Show the first card from its top, with what is likeliest under the finger.
function show() {
  const card = shown();
  for (const each of deck.children) each.hidden = each !== card;
  if (card !== front) {
    since = performance.now();
    if (card) scrollBy(0, Math.min(0, card.getBoundingClientRect().top - ROOM_ABOVE));
  }
  front = card;
  nothing.hidden = Boolean(card) || unsent.size > 0;
  const typed = card?.querySelector(".newcomer[open] input[type=text]");
  (typed ?? card?.querySelector(".likeliest") ?? card ?? nothing).focus({ preventScroll: true });
}

function notice(text) {
  const made = document.createElement("p");
  made.className = "notice problem";
  made.append(text);
  return made;
}

const complain = (text) => said.replaceChildren(notice(text));

// The answer to the form's data as a fragment of the page; null after saying what went wrong.
async function ask(address, data) {
  for (const key of had()) data.append("have", key);
  let response;
  try {
    response = await send(address, data);
  } catch (error) {
    complain(error instanceof LoggedOut ? saysLoggedOut() : inbox.dataset.noAnswer);
    return null;
  }
  if (response.headers.has("X-Fragment")) {
    const part = document.createElement("div");
    part.innerHTML = await response.text();
    return part.firstElementChild;
  } else complain(inbox.dataset.failed);
  return null;
}

// Keep in a card that came anew what was typed into the same card before, and why that was refused.
function carry(old, card) {
  for (const { name, value, checked } of old.querySelectorAll("input:not([type=hidden])")) {
    const input = card.querySelector(`input[name="${name}"]:not([type=hidden])`);
    if (input) Object.assign(input, input.type === "checkbox" ? { checked } : { value });
  }
  const opened = card.querySelector(".newcomer");
  if (opened) opened.open = old.querySelector(".newcomer")?.open ?? false;
  card.querySelector(".card-text").append(...old.querySelectorAll(".card-text > .problem"));
}

// Take what the answer brings: what was done, how much is left, and the cards behind the one that is
// shown, anew, because what was done may have changed whom they show. A card that was refused comes next.
function take(answer, decided = null) {
  said.replaceChildren(...answer.querySelector(".answer-said").childNodes);
  left.replaceChildren(...answer.querySelector(".answer-left").childNodes);
  for (const place of document.querySelectorAll(".inbox-count")) {
    place.textContent = answer.dataset.left;
    place.hidden = answer.dataset.left === "0";
  }
  undoing.hidden = !answer.dataset.undo;
  again.hidden = !answer.dataset.skipped;
  if (answer.dataset.refused) {
    const why = [...said.querySelectorAll(".problem")].map((each) => each.textContent);
    decided.querySelector(".card-text").append(...why.map(notice));
  }
  const here = had();
  const cards = [...answer.querySelectorAll(".card")].filter((card) => !here.includes(card.dataset.key));
  for (const input of cards.flatMap((card) => [...card.querySelectorAll("[data-suggest]")])) makePersonField(input);
  const before = [...deck.children].slice(1);
  for (const card of cards) {
    const old = [decided, ...before].find((each) => each?.dataset.key === card.dataset.key);
    if (old) carry(old, card);
  }
  for (const each of before) each.remove();
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
  for (const each of card.querySelectorAll(".card-text > .problem")) each.remove();
  const act = { isRefused: false };
  last = act;
  card.remove();
  unsent.add(key);
  undoing.hidden = false;
  show();
  later(async () => {
    const answer = await ask(form.action, data);
    unsent.delete(key);
    act.isRefused = !answer || Boolean(answer.dataset.refused);
    card.hidden = true;
    if (answer) take(answer, card);
    else if (shown()) shown().after(card);
    else deck.append(card);
    if (!shown() || shown().hidden) show();
  });
}

// Its card comes to the front: until then there is none that a key could settle. Of what is refused on the
// way there is nothing to take back.
function takeBack() {
  const data = new FormData(undoing);
  const act = unsent.size ? last : null;
  last = null;
  returning += 1;
  deck.inert = true;
  later(async () => {
    try {
      const answer = act?.isRefused ? null : await ask(undoing.action, data);
      const before = shown();
      if (answer) take(answer);
      const back = deck.children[1];
      if (before && answer?.dataset.back?.split(" ").includes(back?.dataset.key)) back.after(before);
    } finally {
      returning -= 1;
      deck.inert = returning > 0;
      show();
    }
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

// Whether this was not meant for the card in front: it happened before that was there, a key is held down,
// or it is the second half of a double click whose first half brought that card. Two quick taps on one card are
// both meant: "Somebody else", then what that unfolds in the same place.
const isLate = ({ timeStamp, repeat, detail }) =>
  timeStamp < since || repeat || (detail > 1 && timeStamp - since < DOUBLE_CLICK_MS);

// Whether the key meant something.
function press(key) {
  const card = deck.inert ? null : shown();
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

for (const type of ["keydown", "click"]) {
  deck.addEventListener(
    type,
    (event) => {
      const acts = type === "click" ? event.target.closest("button, summary") : event.key === "Enter";
      if (!acts || !isLate(event)) return;
      event.preventDefault();
      event.stopPropagation();
    },
    { capture: true },
  );
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || isLate(event)) return;
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

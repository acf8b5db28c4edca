// What the search page does better with a script: one request for each picture, so that answers come as
// they are ready, and what was chosen stays.

import { announcement, ask, clear, problem, results, reveal, say } from "./results.js";
import { makePersonField } from "./person-field.js";
import { makePicker } from "./picker.js";
import { setBusy, showProgress } from "./progress.js";

const form = document.querySelector("#search-form");
const button = document.querySelector("#search-button");

let searched = false;
let run = null;
let numbers = []; // of the answers shown

const picker = makePicker(form, () => {
  // After a search the next picture begins a new choice.
  if (searched) picker.clear();
  searched = false;
});

function setSearching(busy) {
  setBusy(button, busy);
  results.setAttribute("aria-busy", String(busy));
}

// Puts the answer's address, with those of earlier pictures, into the address bar: a reload shows them again.
function remember(kept) {
  if (!kept) return;
  numbers.push(kept.dataset.answer);
  const { pathname } = new URL(kept.querySelector("a").href);
  history.replaceState(null, "", pathname.replace(kept.dataset.answer, numbers.join(",")));
}

// What is done to one face leads back to all answers that are shown.
results.addEventListener("submit", ({ target }) => {
  if (target.answers && numbers.length) target.answers.value = numbers.join(",");
});

const isLoggedOut = () => Boolean(results.querySelector("[data-logged-out]"));

async function searchOne(file, signal) {
  const data = new FormData(form);
  data.delete("images");
  data.append("images", file, file.name);
  const part = await ask(form, data, signal);
  results.append(part);
  part.querySelectorAll("input[data-suggest]").forEach(makePersonField);
  remember(part.querySelector("[data-answer]"));
  return announcement(part);
}

async function search(pictures) {
  run?.abort();
  const mine = (run = new AbortController());
  const told = [];
  clear();
  numbers = [];
  searched = true;
  say(form.dataset.searching);
  setSearching(true);
  const total = pictures.length;
  showProgress(form.dataset.searching, { total });
  reveal();
  try {
    for (const [done, file] of pictures.entries()) {
      if (total > 1) showProgress(form.dataset.progress, { number: done + 1, done, total });
      told.push(await searchOne(file, mine.signal));
      if (!done) reveal();
      say(told.at(-1));
      if (isLoggedOut()) break; // every further picture would be sent for nothing
    }
    if (total > 1 && !isLoggedOut()) say(`${form.dataset.done} ${told.join(" ")}`);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    if (run !== mine) return;
    say(form.dataset.stopped);
  }
  setSearching(false);
  if (total === 1) reveal(); // the bar above is gone
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const pictures = picker.files();
  if (pictures.length) {
    search([...pictures]);
    return;
  }
  picker.input.focus();
  clear();
  results.append(problem(form, form.dataset.noPicture));
  say(announcement(results));
});

// The browser can only point at a wrong number when it can be seen.
form.addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);

document.querySelector("#stop-button").addEventListener("click", () => {
  run?.abort();
  button.focus();
});

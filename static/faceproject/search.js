// What the search page does better with a script: one request for each picture, so that answers come as
// they are ready, and what was chosen stays.

import { announcement, ask, clear, problem, results, reveal, say } from "./results.js";
import { makePicker } from "./picker.js";

const form = document.querySelector("#search-form");
const button = document.querySelector("#search-button");
const progress = document.querySelector("#progress");
const progressText = document.querySelector("#progress-text");
const progressBar = document.querySelector("#progress-bar");

let searched = false;
let run = null;

const picker = makePicker(form, () => {
  // After a search the next picture begins a new choice.
  if (searched) picker.clear();
  searched = false;
});

function showProgress(done, total) {
  const numbers = { number: Math.min(done + 1, total), total };
  const text = form.dataset.progress.replace(/\{(\w+)\}/g, (_all, key) => numbers[key]);
  progressText.textContent = total > 1 ? text : form.dataset.searching;
  progressBar.max = total;
  // One picture has no half: the bar moves by itself.
  if (total > 1) progressBar.value = done;
  else progressBar.removeAttribute("value");
}

function setBusy(busy) {
  button.classList.toggle("busy", busy);
  results.setAttribute("aria-busy", String(busy));
  progress.hidden = !busy;
}

async function searchOne(file, signal) {
  const data = new FormData(form);
  data.delete("images");
  data.append("images", file, file.name);
  const part = await ask(form, data, signal);
  results.append(part);
  return announcement(part);
}

async function search(pictures) {
  run?.abort();
  const mine = (run = new AbortController());
  const told = [];
  clear();
  searched = true;
  say(form.dataset.searching);
  setBusy(true);
  showProgress(0, pictures.length);
  reveal();
  try {
    for (const [done, file] of pictures.entries()) {
      showProgress(done, pictures.length);
      told.push(await searchOne(file, mine.signal));
      if (!done) reveal();
      say(told.at(-1));
    }
    if (pictures.length > 1) say(`${form.dataset.done} ${told.join(" ")}`);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    if (run !== mine) return;
    say(form.dataset.stopped);
  }
  setBusy(false);
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

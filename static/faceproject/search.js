// What the search page does better with a script: pictures chosen one after the other, dropped, pasted
// or taken with the camera; one request for each, so that answers come as they are ready.

import { acceptFiles, announcement, ask, clear, problem, results, reveal, say } from "./results.js";
import { offerCamera } from "./camera.js";

const form = document.querySelector("#search-form");
const input = form.querySelector("input[type=file]");
const button = document.querySelector("#search-button");
const list = document.querySelector("#chosen");
const progress = document.querySelector("#progress");
const progressText = document.querySelector("#progress-text");
const progressBar = document.querySelector("#progress-bar");

let chosen = [];
let searched = false;
let run = null;

function add(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  // After a search the next picture begins a new choice.
  if (searched) chosen = [];
  searched = false;
  chosen.push(...(pictures.length ? pictures : files));
  showChosen();
  button.focus({ preventScroll: true });
}

function remove(index) {
  chosen.splice(index, 1);
  showChosen();
  (list.querySelectorAll("button")[Math.min(index, chosen.length - 1)] ?? input).focus();
}

function item(file, index) {
  const entry = document.createElement("li");
  const image = document.createElement("img");
  const name = document.createElement("span");
  const drop = document.createElement("button");
  image.alt = "";
  // Browsers do not show every format that the server reads: then the file's name has to do.
  image.addEventListener("error", () => image.remove());
  image.addEventListener("load", () => URL.revokeObjectURL(image.src));
  image.src = URL.createObjectURL(file);
  name.className = "file-name";
  name.textContent = file.name;
  drop.type = "button";
  drop.className = "link";
  drop.textContent = "×";
  drop.setAttribute("aria-label", `${form.dataset.remove}: ${file.name}`);
  drop.addEventListener("click", () => remove(index));
  entry.append(image, name, drop);
  return entry;
}

function showChosen() {
  list.replaceChildren(...chosen.map(item));
  list.hidden = !chosen.length;
}

input.addEventListener("change", () => {
  add([...input.files]);
  input.value = "";
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
  if (chosen.length) {
    search(chosen);
    return;
  }
  input.focus();
  clear();
  results.append(problem(form, form.dataset.noPicture));
  say(announcement(results));
});

document.querySelector("#stop-button").addEventListener("click", () => {
  run?.abort();
  button.focus();
});

acceptFiles(add);
offerCamera(document.querySelector("#camera-button"), document.querySelector("#camera-fallback"), (file) => add([file]));
document.querySelector("#id_photo")?.addEventListener("change", (event) => {
  add([...event.target.files]);
  event.target.value = "";
});

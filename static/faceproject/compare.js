// What the comparison does better with a script: previews, drop, paste, the camera, the answer without
// a reload.

import { offerCamera } from "./camera.js";
import { acceptFiles, announcement, ask, clear, problem, results, reveal, say } from "./results.js";

const form = document.querySelector("#compare-form");
const button = document.querySelector("#compare-button");
const zones = [...form.querySelectorAll(".drop-zone")];
const inputs = zones.map((zone) => zone.querySelector("input"));
const person = form.querySelector("#id_person"); // instead of the second picture

let run = null;

function show(zone) {
  const [file] = zone.querySelector("input").files;
  const preview = zone.querySelector(".preview");
  const name = zone.querySelector(".file-name");
  URL.revokeObjectURL(preview.src);
  name.textContent = file?.name ?? "";
  name.hidden = !file;
  preview.hidden = true;
  if (file) preview.src = URL.createObjectURL(file);
  if (file && zone === zones[1]) person.value = "";
}

// Where a picture goes that was dropped beside the zones or pasted: into the first empty one.
function zoneFor(target) {
  return target.closest(".drop-zone") ?? zones.find((zone, at) => !inputs[at].files.length) ?? zones[1];
}

function put(file, zone) {
  const one = new DataTransfer();
  one.items.add(file);
  zone.querySelector("input").files = one.files;
  show(zone);
}

for (const [at, zone] of zones.entries()) {
  inputs[at].addEventListener("change", () => show(zone));
  // Browsers do not show every format that the server reads: then the file's name has to do.
  const preview = zone.querySelector(".preview");
  preview.addEventListener("load", () => {
    preview.hidden = false;
  });
  const fallback = zone.querySelector(".camera-fallback");
  fallback.querySelector("input").addEventListener("change", ({ target }) => {
    if (target.files.length) put(target.files[0], zone);
    target.value = "";
  });
  offerCamera(zone.querySelector(".camera-button"), fallback, (file) => put(file, zone));
  show(zone);
}

person.addEventListener("input", () => {
  if (!person.value) return;
  inputs[1].value = "";
  show(zones[1]);
});

acceptFiles((files, target) => {
  const [first, second] = files;
  put(first, zoneFor(target));
  if (second) put(second, zoneFor(document.body));
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const given = inputs.map((input, at) => input.files.length || (at === 1 && person.value.trim()));
  const missing = given.findIndex((each) => !each);
  clear();
  if (missing >= 0) {
    results.append(problem(form, zones[missing].dataset.missing));
    inputs[missing].focus();
    say(announcement(results));
    return;
  }
  run?.abort();
  const mine = (run = new AbortController());
  button.classList.add("busy");
  results.setAttribute("aria-busy", "true");
  say(form.dataset.searching);
  try {
    const part = await ask(form, new FormData(form), mine.signal);
    clear();
    results.append(part);
    say(announcement(part));
  } catch (error) {
    if (error.name === "AbortError") return;
    throw error;
  }
  button.classList.remove("busy");
  results.setAttribute("aria-busy", "false");
  reveal();
});

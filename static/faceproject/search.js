// What the search page does better with a script: preview, drop, paste, results without a reload.
// The form works without any of it; every sentence comes translated from the template.

const form = document.querySelector("#search-form");
const input = form.querySelector("input[type=file]");
const button = document.querySelector("#search-button");
const dropZone = document.querySelector("#drop-zone");
const preview = document.querySelector("#preview");
const fileName = document.querySelector("#file-name");
const results = document.querySelector("#results");
const status = document.querySelector("#status");

let request = null;

document.documentElement.classList.add("js");
// The input is out of sight now, and with it the browser's own message; choose() says it instead.
input.required = false;

function showChosen() {
  const [file] = input.files;
  URL.revokeObjectURL(preview.src);
  fileName.textContent = file?.name ?? "";
  fileName.hidden = !file;
  preview.hidden = true;
  if (file) preview.src = URL.createObjectURL(file);
}

// Browsers do not show every format that the server reads: then the file's name has to do.
preview.addEventListener("load", () => { preview.hidden = false; });

function take(files) {
  const picture = [...files].find((file) => file.type.startsWith("image/")) ?? files[0];
  if (!picture) return;
  const one = new DataTransfer();
  one.items.add(picture);
  input.files = one.files;
  showChosen();
}

input.addEventListener("change", showChosen);

document.addEventListener("paste", (event) => {
  if (!event.clipboardData?.files.length) return;
  event.preventDefault();
  take(event.clipboardData.files);
});

// A picture dropped beside the zone must not make the browser leave the page.
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    const inside = type !== "dragleave" || event.relatedTarget !== null;
    dropZone.classList.toggle("dragging", type !== "drop" && inside);
    if (type === "drop") take(event.dataTransfer.files);
  });
}

function setBusy(busy) {
  button.classList.toggle("busy", busy);
  results.setAttribute("aria-busy", String(busy));
}

function announce() {
  status.textContent = results.querySelector("[data-announce]")?.dataset.announce ?? "";
}

function reveal() {
  const behaviour = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  const { top } = results.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) results.scrollIntoView({ behavior: behaviour });
}

function showProblem(message) {
  const notice = document.createElement("div");
  const title = document.createElement("h3");
  const text = document.createElement("p");
  notice.className = "notice problem";
  title.textContent = form.dataset.failedTitle;
  text.textContent = message;
  notice.dataset.announce = `${title.textContent}. ${message}`;
  notice.append(title, text);
  results.replaceChildren(notice);
}

async function showAnswer(response) {
  if (response.redirected) {
    // The session has ended: what came is the login page.
    location.reload();
  } else if (response.headers.has("X-Fragment")) {
    results.innerHTML = await response.text();
  } else {
    showProblem(form.dataset.failed);
  }
}

async function search() {
  request?.abort();
  const mine = (request = new AbortController());
  setBusy(true);
  status.textContent = form.dataset.searching;
  try {
    const options = {
      method: "POST",
      body: new FormData(form),
      headers: { "X-Fragment": "1" },
      signal: mine.signal,
    };
    await showAnswer(await fetch(form.action, options));
  } catch (error) {
    if (error.name === "AbortError") return;
    showProblem(form.dataset.noAnswer);
  }
  setBusy(false);
  announce();
  reveal();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!input.files.length) {
    input.focus();
    showProblem(form.dataset.noPicture);
    announce();
    return;
  }
  search();
});

showChosen();

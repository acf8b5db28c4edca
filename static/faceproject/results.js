// What the search and the comparison share: sending a form for its results part, and showing it.
// Every sentence comes translated from the template.

import { isTooLarge, LoggedOut, saysLoggedOut, send } from "./forms.js";

export const results = document.querySelector("#results");
const status = document.querySelector("#status");

export function say(text) {
  status.textContent = text;
}

export function announcement(part) {
  const texts = [...part.querySelectorAll("[data-announce]")].map((node) => node.dataset.announce);
  return texts.join(" ").replace(/\s+/g, " ").replace(/ (?=[,.])/g, "").trim();
}

export function problem(form, message) {
  const notice = document.createElement("div");
  const title = document.createElement("h3");
  const text = document.createElement("p");
  notice.className = "notice problem";
  title.textContent = form.dataset.failedTitle;
  text.append(message);
  notice.dataset.announce = `${title.textContent}. ${text.textContent}`;
  notice.append(title, text);
  return notice;
}

// The answer to the form's data as a fragment of the page; a problem to show when there is none.
export async function ask(form, data, signal) {
  const part = document.createElement("div");
  part.className = "results-part";
  if (isTooLarge(form, [...data.values()].filter((each) => each instanceof File))) {
    part.append(problem(form, form.dataset.tooLarge));
    return part;
  }
  try {
    const response = await send(form.action, data, signal);
    if (response.headers.has("X-Fragment")) {
      part.innerHTML = await response.text();
      part.querySelector("#results-title")?.remove();
    } else {
      part.append(problem(form, form.dataset.failed));
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const isLoggedOut = error instanceof LoggedOut;
    part.toggleAttribute("data-logged-out", isLoggedOut);
    part.append(problem(form, isLoggedOut ? saysLoggedOut() : form.dataset.noAnswer));
  }
  return part;
}

export function clear() {
  results.replaceChildren(results.querySelector("#results-title"));
}

export function reveal() {
  const behavior = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  const { top } = results.getBoundingClientRect();
  if (top < 0 || top > innerHeight / 2) results.scrollIntoView({ behavior });
}

// Calls take(files, target) for what is pasted or dropped anywhere on the page.
export function acceptFiles(take) {
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData?.files.length) return;
    event.preventDefault();
    take([...event.clipboardData.files], document.body);
  });
  // A picture dropped beside a zone must not make the browser leave the page.
  for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(type, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      const inside = type !== "drop" && (type !== "dragleave" || event.relatedTarget !== null);
      for (const zone of document.querySelectorAll(".drop-zone")) {
        zone.classList.toggle("dragging", inside);
      }
      if (type === "drop") take([...event.dataTransfer.files], event.target);
    });
  }
}

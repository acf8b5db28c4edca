"use strict";

// Keeps the progress of an import current, and shows its report when it is over.
const EVERY = 2000; // milliseconds

async function look() {
  const shown = document.getElementById("import-progress");
  if (!shown?.hasAttribute("data-working")) return;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.status >= 500) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = page.getElementById("import-progress");
    if (!next?.hasAttribute("data-working")) {
      location.reload();
      return;
    }
    shown.querySelector("progress").value = next.querySelector("progress").value;
    for (const text of ["#import-progress > p", "#import-counts"]) {
      const place = document.querySelector(text);
      if (place) place.textContent = page.querySelector(text).textContent;
    }
  } catch {
    // The server does not answer just now: ask again.
  }
  setTimeout(look, EVERY);
}

setTimeout(look, EVERY);

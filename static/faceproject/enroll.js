// What enrolling does better with a script: pictures are dropped, pasted, taken with the camera, and sent
// a few at a time, so that many large ones pass the limit of a request and one sees how far it is.

import { isTooLarge, LoggedOut, saysLoggedOut, send } from "./forms.js";
import { makePicker } from "./picker.js";
import { setBusy, showProgress } from "./progress.js";

const BATCH_FILES = 10;

const form = document.querySelector("#enroll-form");
const button = form.querySelector("#enroll-button");
const trouble = form.querySelector("#enroll-problem");
const picker = makePicker(form, () => {
  trouble.hidden = true;
});

function complain(text) {
  trouble.replaceChildren(text);
  trouble.hidden = false;
}

// Groups of files that fit into a request each, or one that is too large alone.
function batches(files) {
  const limit = 0.9 * Number(form.dataset.limit);
  const found = [];
  let size = Infinity;
  for (const file of files) {
    size += file.size;
    if (size > limit || found.at(-1).length === BATCH_FILES) {
      found.push([]);
      size = file.size;
    }
    found.at(-1).push(file);
  }
  return found;
}

// Why the server did not take the files; nothing when it did.
async function refusal(files) {
  const data = new FormData(form);
  data.delete("pictures");
  for (const file of files) data.append("pictures", file, file.name);
  const response = await send(form.action, data);
  if (response.status === 204) return "";
  return response.headers.has("X-Fragment") ? response.text() : form.dataset.failed;
}

function setEnrolling(busy) {
  setBusy(button, busy);
  button.disabled = busy;
}

// What became of each picture stands on the person's page, which is loaded anew at the end.
async function enroll(files) {
  setEnrolling(true);
  let done = 0;
  try {
    for (const batch of batches(files)) {
      showProgress(form.dataset.progress, { done, total: files.length });
      if (isTooLarge(form, batch)) {
        complain(form.dataset.tooLarge);
        break;
      }
      const why = await refusal(batch);
      if (why) {
        complain(why);
        break;
      }
      done += batch.length;
      picker.clear(batch);
    }
  } catch (error) {
    complain(error instanceof LoggedOut ? saysLoggedOut() : form.dataset.noAnswer);
  }
  if (done === files.length) location.assign(form.dataset.page);
  else setEnrolling(false);
}

form.addEventListener("submit", (event) => {
  const files = [...picker.files()];
  if (form.dataset.page) {
    event.preventDefault();
    if (files.length) enroll(files);
    else {
      complain(form.dataset.noPicture);
      picker.input.focus();
    }
    return;
  }
  // A person who is not made yet comes in one request with the first pictures.
  if (isTooLarge(form, files)) {
    event.preventDefault();
    complain(form.dataset.tooLarge);
    return;
  }
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  picker.input.files = transfer.files;
  button.classList.add("busy");
});

// Coming back by the browser's arrow, one finds the form as it can be used.
addEventListener("pageshow", () => button.classList.remove("busy"));

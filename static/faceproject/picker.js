// Pictures chosen one after the other, dropped, pasted or taken with the camera, before they are sent.
// Used where templates/enrollment/query/picker.html stands in a form.

import { acceptFiles } from "./results.js";
import { offerCamera } from "./camera.js";

const list = document.querySelector("#chosen");

// `files()` are those chosen; `onAdd` is called before others join them, and may `clear()` first.
export function makePicker(form, onAdd = () => {}) {
  const input = form.querySelector(".drop-zone > input[type=file]");
  let chosen = [];

  function add(files) {
    onAdd();
    chosen.push(...files); // what is no picture the server says: a browser may not know the type of one
    show();
    form.querySelector(".button.primary").focus({ preventScroll: true });
  }

  function remove(index) {
    chosen.splice(index, 1);
    show();
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
    drop.setAttribute("aria-label", `${list.dataset.remove}: ${file.name}`);
    drop.addEventListener("click", () => remove(index));
    entry.append(image, name, drop);
    return entry;
  }

  function show() {
    list.replaceChildren(...chosen.map(item));
    list.hidden = !chosen.length;
  }

  input.addEventListener("change", () => {
    add([...input.files]);
    input.value = "";
  });
  document.querySelector("#id_photo")?.addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  acceptFiles(add);
  offerCamera(
    document.querySelector("#camera-button"),
    document.querySelector("#camera-fallback"),
    (file) => add([file]),
  );
  return {
    input,
    files: () => chosen,
    clear(files = chosen) {
      chosen = chosen.filter((file) => !files.includes(file));
      show();
    },
  };
}

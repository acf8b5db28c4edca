// A field in which one types a part of an id or name, and chooses the person from a list with faces. Without
// this script it is an ordinary search field.
//
// Every input[data-suggest] becomes one: the attribute is the address that answers {"persons": […]}. Choosing
// sends the event "person-chosen", whose detail is the person; unless a listener prevents that, a field with
// data-choose="open" opens the person's page, one with data-choose="fill" gets the person's id, and one with
// data-choose="NAME" sends its form with NAME set to the person's key.

const WAIT_MS = 120;
let number = 0;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function option(person, id) {
  const face = person.face
    ? element("img", { src: person.face, alt: "", width: 40, height: 40 })
    : element("span", { class: "no-face", "aria-hidden": "true" });
  const words = element("span", {}, element("strong", {}, person.name || person.person_id));
  if (person.name) words.append(element("span", { class: "person-id" }, person.person_id));
  return element("li", { id, role: "option", "aria-selected": "false" }, face, words);
}

function choose(input, person) {
  const event = new CustomEvent("person-chosen", { bubbles: true, cancelable: true, detail: person });
  if (!input.dispatchEvent(event)) return;
  const name = input.dataset.choose;
  if (name === "open") location.assign(person.page);
  else if (name === "fill") input.value = person.person_id;
  else if (name) {
    input.form.append(element("input", { type: "hidden", name, value: person.key }));
    input.form.submit();
  }
}

export function makePersonField(input) {
  number += 1;
  const id = `persons-${number}`;
  const list = element("ul", { id, class: "suggestions", role: "listbox", hidden: "" });
  list.setAttribute("aria-label", input.dataset.label ?? input.placeholder);
  const box = element("div", { class: "person-field" });
  input.replaceWith(box);
  box.append(input, list);
  const attributes = {
    role: "combobox",
    autocomplete: "off",
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": id,
  };
  for (const [key, value] of Object.entries(attributes)) input.setAttribute(key, value);

  let persons = [];
  let current = -1;
  let timer = 0;
  let asking = new AbortController();

  function mark(index) {
    current = index;
    [...list.children].forEach((each, place) => each.setAttribute("aria-selected", String(place === index)));
    if (index < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", list.children[index].id);
      list.children[index].scrollIntoView({ block: "nearest" });
    }
  }

  function show(found) {
    persons = found;
    list.replaceChildren(...found.map((person, index) => option(person, `${id}-${index}`)));
    list.hidden = found.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    mark(-1);
  }

  async function ask() {
    asking.abort();
    asking = new AbortController();
    const text = input.value.trim();
    if (!text) return show([]);
    try {
      const address = `${input.dataset.suggest}?q=${encodeURIComponent(text)}`;
      const response = await fetch(address, { signal: asking.signal, headers: { Accept: "application/json" } });
      show(response.ok ? (await response.json()).persons : []);
    } catch (error) {
      if (error.name !== "AbortError") show([]);
    }
  }

  function take(index) {
    const person = persons[index];
    show([]);
    choose(input, person);
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(ask, WAIT_MS);
  });
  input.addEventListener("keydown", (event) => {
    const { key } = event;
    if (key === "ArrowDown" || key === "ArrowUp") {
      if (!persons.length) return;
      const step = key === "ArrowDown" ? 1 : -1;
      mark((current + step + persons.length + (current < 0 && step < 0 ? 1 : 0)) % persons.length);
    } else if (key === "Enter" && current >= 0) take(current);
    else if (key === "Escape" && persons.length) show([]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    asking.abort();
    show([]);
  });
  // Before the field loses the focus, which closes the list.
  list.addEventListener("pointerdown", (event) => event.preventDefault());
  list.addEventListener("click", (event) => {
    const index = [...list.children].indexOf(event.target.closest("li"));
    if (index >= 0) take(index);
  });
}

for (const input of document.querySelectorAll("input[data-suggest]")) makePersonField(input);

// What the list of people does better with a script: it counts who is ticked, ticks a whole page or a range,
// and is walked through by keys. The keys act only while the focus is in the list.

const list = document.querySelector("#people");
const form = document.querySelector("#many");

if (list && form) {
  const boxes = [...list.querySelectorAll("input[type=checkbox]")];
  const whom = form.querySelector("#whom");
  const told = form.querySelector("#ticked");
  const details = form.querySelector("details");
  let last = null;

  // The list stays under the finger.
  const unfold = () => {
    const { top } = list.getBoundingClientRect();
    details.open = true;
    scrollBy(0, list.getBoundingClientRect().top - top);
  };

  const tell = () => {
    const count = boxes.filter((box) => box.checked).length;
    told.textContent = count ? told.dataset.text.replace("{count}", count) : "";
    if (count) unfold();
    if (whom.value === "page" && count < boxes.length) whom.value = "ticked";
  };

  const tickAll = (on) => {
    for (const box of boxes) box.checked = on;
    tell();
  };

  whom.addEventListener("change", () => {
    if (whom.value !== "ticked") tickAll(true);
  });

  list.addEventListener("click", (event) => {
    const box = event.target.closest("input[type=checkbox]");
    if (!box) return;
    if (event.shiftKey && last) {
      const [from, to] = [boxes.indexOf(last), boxes.indexOf(box)].sort((a, b) => a - b);
      for (const each of boxes.slice(from, to + 1)) each.checked = box.checked;
    }
    last = box;
  });
  list.addEventListener("change", () => {
    if (whom.value === "all") whom.value = "ticked";
    tell();
  });

  // How many cards stand beside one another.
  const columns = () => {
    const cards = [...list.children];
    const top = cards[0].offsetTop;
    const below = cards.findIndex((card) => card.offsetTop !== top);
    return below < 0 ? cards.length : below;
  };

  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const cards = [...list.children];
    const place = cards.indexOf(event.target.closest("li"));
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const box = cards[place].querySelector("input[type=checkbox]");
    if (key in steps) cards[place + steps[key]]?.querySelector("a").focus();
    else if (key === "Home") cards[0].querySelector("a").focus();
    else if (key === "End") cards.at(-1).querySelector("a").focus();
    else if (key === "x" || (key === " " && event.target !== box)) {
      box.checked = !box.checked;
      last = box;
      tell();
    } else if (key === "a") tickAll(!boxes.every((each) => each.checked));
    else if (key === "Escape") tickAll(false);
    else if (key === "m") {
      unfold();
      form.querySelector("button").focus();
    }
    else return;
    event.preventDefault();
  });

  // Coming back by the browser's arrow, one finds what one had ticked.
  addEventListener("pageshow", tell);
}

// How far a work of several requests is: a sentence, a bar, and the button that began it.

const box = document.querySelector("#progress");
const text = document.querySelector("#progress-text");
const bar = document.querySelector("#progress-bar");

export function setBusy(button, busy) {
  button.classList.toggle("busy", busy);
  box.hidden = !busy;
}

// Fills the numbers into the sentence. Until a first part is done, the bar moves by itself.
export function showProgress(sentence, numbers) {
  text.textContent = sentence.replace(/\{(\w+)\}/g, (_all, key) => numbers[key]);
  bar.max = numbers.total;
  if (numbers.done) bar.value = numbers.done;
  else bar.removeAttribute("value");
}

// A receipt is shown once: whoever leaves before each was saved is asked.

const unsaved = new Set();

for (const link of document.querySelectorAll("main a[download]")) {
  const receipt = link.parentElement;
  unsaved.add(receipt);
  link.addEventListener("click", () => unsaved.delete(receipt));
}

addEventListener("beforeunload", (event) => unsaved.size && event.preventDefault());

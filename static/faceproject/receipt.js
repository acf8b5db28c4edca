// A receipt is shown once: whoever leaves before each was saved is asked. The page loads this before its
// text, so that nobody can leave before anybody listens.

{
  const RECEIPT = "main a[download]";
  const saved = new Set();

  addEventListener("click", ({ target }) => {
    const link = target.closest(RECEIPT);
    if (link) saved.add(link.parentElement);
  });

  addEventListener("beforeunload", (event) => {
    const receipts = [...document.querySelectorAll(RECEIPT)].map((link) => link.parentElement);
    if (!receipts.every((receipt) => saved.has(receipt))) event.preventDefault();
  });
}

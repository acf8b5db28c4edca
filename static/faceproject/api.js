// Sends what a browser's form cannot: PATCH with JSON, and DELETE. The answer takes the page's place.

async function send(form) {
  const method = form.dataset.method;
  const body = form.elements.body?.value;
  const response = await fetch(form.action, {
    method,
    body,
    headers: {
      Accept: "text/html,application/xhtml+xml",
      "X-CSRFToken": document.querySelector("[name=csrfmiddlewaretoken]").value,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
  });
  if (response.redirected) {
    location.reload();
    return;
  }
  const answer = new DOMParser().parseFromString(await response.text(), "text/html");
  document.querySelector("main").replaceWith(answer.querySelector("main"));
  // What was refused is put right where it stands.
  const again = document.querySelector(`main form[data-method="${method}"]`);
  if (!response.ok && body !== undefined && again) again.elements.body.value = body;
  document.querySelector("#answer")?.focus();
  scrollTo(0, 0);
}

document.addEventListener("submit", (event) => {
  if (!event.target.dataset.method) return;
  event.preventDefault();
  send(event.target);
});

// What Swagger UI lacks: dark colours as our pages have them, names for some of its fields, and boxes that
// a keyboard can scroll.

const root = document.documentElement;
const swagger = document.querySelector("#swagger-ui");
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function colour() {
  const { theme } = root.dataset;
  root.classList.toggle("dark-mode", theme === "dark" || (theme === "auto" && systemIsDark.matches));
}

function mend() {
  for (const list of swagger.querySelectorAll("select:not([aria-label], [id])")) {
    list.setAttribute("aria-label", swagger.dataset.examples);
  }
  for (const input of swagger.querySelectorAll("input[type=file]:not([aria-label])")) {
    const row = input.closest("[data-property-name], [data-param-name], tr");
    const name = row?.dataset.propertyName ?? row?.dataset.paramName;
    input.setAttribute("aria-label", name ?? swagger.dataset.file);
  }
  for (const box of swagger.querySelectorAll(".microlight:not([tabindex])")) box.tabIndex = 0;
}

new MutationObserver(colour).observe(root, { attributeFilter: ["data-theme"] });
systemIsDark.addEventListener("change", colour);
colour();
new MutationObserver(mend).observe(swagger, { childList: true, subtree: true });
mend();

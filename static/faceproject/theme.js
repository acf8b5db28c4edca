// Light or dark as the system has it, unless chosen here or in the admin, which keep the choice together.
// Stands in the head and not as a module, so that no page is painted in the wrong colours first.

(() => {
  const choices = ["auto", "light", "dark"];
  const root = document.documentElement;

  function chosen() {
    try {
      const choice = localStorage.getItem("theme");
      return choices.includes(choice) ? choice : "auto";
    } catch {
      return "auto"; // a browser may forbid to store anything
    }
  }

  root.dataset.theme = chosen();
  root.classList.add("js");

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("#theme");
    if (!button) return;
    const name = button.querySelector("span");
    const show = () => {
      name.textContent = button.title = button.dataset[root.dataset.theme];
    };
    button.addEventListener("click", () => {
      root.dataset.theme = choices[(choices.indexOf(root.dataset.theme) + 1) % choices.length];
      try {
        localStorage.setItem("theme", root.dataset.theme);
      } catch {
        // then it holds for this page
      }
      show();
    });
    button.hidden = false;
    show();
    document.addEventListener("click", (event) => {
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        if (!menu.contains(event.target)) menu.open = false;
      }
    });
    document.addEventListener("keydown", (event) => {
      const menu = document.querySelector("details.menu[open]");
      if (event.key !== "Escape" || !menu) return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  });
})();

// What Swagger UI lacks: dark colours as our pages have them, names for some of its fields, boxes that a
// keyboard can scroll, and forms that can be sent as they are.

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

// A plugin, named by the settings: a field that may be left out is empty until somebody fills it in. Swagger UI
// would send a sample in it: another picture's embedding, a threshold that nothing reaches.
globalThis.optionsStartEmpty = ({ React }) => ({
  wrapComponents: {
    JsonSchemaForm: (Form) =>
      class extends React.Component {
        startsEmpty = !this.props.required && !this.props.schema.has("default");

        componentDidMount() {
          if (this.startsEmpty && this.props.dispatchInitialValue) this.props.onChange("");
        }

        render() {
          const dispatchInitialValue = this.props.dispatchInitialValue && !this.startsEmpty;
          return React.createElement(Form, { ...this.props, dispatchInitialValue });
        }
      },
  },
});

new MutationObserver(colour).observe(root, { attributeFilter: ["data-theme"] });
systemIsDark.addEventListener("change", colour);
colour();
new MutationObserver(mend).observe(swagger, { childList: true, subtree: true });
mend();

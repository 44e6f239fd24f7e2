// Questions before something expensive.

/// Asks the user. Resolves to the values of the fields by their names if the user agrees, otherwise to null. Each of
/// `fields` is `{name, label, options: [[value, text]], value}`, or without options a number from `min` to `max`.
function ask({ title, text, agree, fields = [] }) {
  const dialog = byId("dialog");
  say(byId("dialog-title"), title);
  say(byId("dialog-ok"), agree);
  const inputs = fields.map((field) => {
    const input = field.options
      ? el(
          "select",
          { name: field.name },
          field.options.map(([value, shown]) => el("option", { value, selected: value === field.value }, shown)),
        )
      : el("input", {
          name: field.name,
          type: "number",
          min: field.min,
          max: field.max,
          step: 1,
          value: field.value,
          required: true,
        });
    input.setAttribute("data-testid", `dialog-${field.name}`);
    return el("label", {}, field.label, input);
  });
  const paragraphs = [text].flat().map((sentence) => el("p", {}, sentence));
  fill(byId("dialog-body"), paragraphs, inputs.length > 0 && el("fieldset", {}, inputs));
  dialog.returnValue = "cancel";
  dialog.showModal();
  byId("dialog-cancel").focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const values = Object.fromEntries(new FormData(byId("dialog-form")));
        resolve(dialog.returnValue === "ok" ? values : null);
      },
      { once: true },
    );
  });
}

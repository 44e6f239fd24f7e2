// Elements of the page. Strings of the server become text nodes only, so that no name of a patient can be markup.

/// The element with an id of index.html.
const byId = (id) => document.getElementById(id);

/// Creates an element. Attributes that are false, null or undefined are left out; `on` has listeners by their events.
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  append(element, children);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/// Creates an element of SVG.
function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/// Appends nodes and texts; null and false are left out.
function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/// Replaces the content of an element, and keeps the focus if the new content has an element with the same
/// `data-key`.
function fill(element, ...children) {
  const active = document.activeElement;
  const key = element.contains(active) ? active.getAttribute("data-key") : null;
  element.replaceChildren();
  append(element, children);
  if (key !== null) {
    const again = [...element.querySelectorAll("[data-key]")].find((node) => node.getAttribute("data-key") === key);
    if (again) again.focus({ preventScroll: true });
  }
}

/// Sets the text of an element, if it is another one: screen readers read a live region again whenever it is set.
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/// An icon, which is always next to a word.
function icon(name, kind = "") {
  const use = svg("use", { href: `#icon-${name}` });
  return svg("svg", { class: `icon ${kind}`.trim(), "aria-hidden": "true" }, use);
}

/// A button with a text.
function button(text, attributes, onClick) {
  return el("button", { type: "button", ...attributes, on: { click: onClick } }, text);
}

/// A sentence that stands for what is empty or cannot be shown.
const note = (text, attributes = {}) => el("p", { class: "note", ...attributes }, text);

/// A sentence with an icon: `kind` is ok, warning, error, busy or unknown.
const sign = (kind, ...text) => el("span", { class: `sign ${kind}` }, icon(kind), el("span", {}, ...text));

/// A table that becomes a list of cards on narrow screens. `rows` are lists of cells, as many as `columns`.
/// A column is a text, or `{text, number: true}` for right-aligned numbers.
function table(caption, columns, rows, attributes = {}) {
  const titles = columns.map((column) => (typeof column === "string" ? { text: column } : column));
  // With roles, since browsers drop those of tables whose parts become blocks.
  const head = titles.map((title) =>
    el("th", { scope: "col", role: "columnheader", class: title.number && "number" }, title.text),
  );
  const body = rows.map((row) => {
    const cells = row.cells ?? row;
    return el(
      "tr",
      { role: "row", ...row.attributes },
      cells.map((cell, index) => {
        const title = titles[index];
        // One child, since a card has two columns: the title and this.
        return el(
          "td",
          { role: "cell", "data-label": title.text, class: title.number && "number" },
          el("div", {}, cell),
        );
      }),
    );
  });
  return el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { role: "table", ...attributes },
      el("caption", { class: "hidden" }, caption),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)),
      el("tbody", { role: "rowgroup" }, body),
    ),
  );
}

// Builds elements. Text always becomes text nodes, so nothing in the data can turn into markup.

const SVG = "http://www.w3.org/2000/svg";

export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no element ${id}`);
  return found;
}

/** Make `<tag>`; `attributes` with null or false are left out, functions become listeners (`onclick`). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function show(element, visible = true) {
  element.hidden = !visible;
}

export function notice(element, text, retry = null) {
  element.replaceChildren(h("p", {}, text));
  if (retry) element.append(h("button", { type: "button", onclick: retry }, "Try again"));
  show(element);
}

export function options(select, values, anyLabel = null) {
  const chosen = select.value;
  const wanted = [...(anyLabel === null ? [] : [["", anyLabel]]), ...values.map((value) => [value, value])];
  const same = wanted.length === select.options.length && wanted.every(([value], place) => select.options[place].value === value);
  // An open list must not change under the reader's hand.
  if (same) return;
  select.replaceChildren(...wanted.map(([value, label]) => h("option", { value }, label)));
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

// Making elements and writing numbers. Text only ever becomes text nodes: nothing here parses HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const isKnown = (value) => value !== null && value !== undefined;
// Rounded to nothing, a number has no sign.
const fixed = (value, digits) => (isKnown(value) ? (Number(value.toFixed(digits)) === 0 ? (0).toFixed(digits) : value.toFixed(digits).replace("-", "−")) : "–");
const count = (value) => (isKnown(value) ? value.toLocaleString("en") : "–");
const short = (value) => (isKnown(value) ? String(Number(value.toPrecision(3))).replace("-", "−") : "–");
function percent(value) {
  if (!isKnown(value)) return "–";
  const p = 100 * value;
  return (p >= 10 || p === 0 ? p.toFixed(0) : p >= 1 ? p.toFixed(1) : String(Number(p.toPrecision(1)))) + " %";
}

const isNarrow = () => matchMedia("(max-width: 760px)").matches;

// A plot: a title, a drawing with room for axes, and what a screen reader says of it.
function plot(title, note, width, height, draw) {
  const drawing = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}. ${note}` });
  draw(drawing);
  return h("figure", { class: "plot" }, h("figcaption", {}, h("b", {}, title), h("span", {}, note)), drawing);
}
const line = (x1, y1, x2, y2, kind) => s("line", { x1, y1, x2, y2, class: kind });
const words = (x, y, text, kind, anchor) => s("text", { x, y, class: kind, "text-anchor": anchor || "start" }, text);
function bar(x, y, width, height, kind, title) {
  return s("rect", { x, y, width: Math.max(0, width), height: Math.max(0, height), class: kind, rx: 1.5 }, title ? s("title", {}, title) : null);
}

// The little window that follows the pointer or the focus.
const tip = byId("tip");
function showTip(node, text) {
  tip.textContent = text;
  tip.hidden = false;
  const box = node.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 6}px`;
}
function hideTip() { tip.hidden = true; }

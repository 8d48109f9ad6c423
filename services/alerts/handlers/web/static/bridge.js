// The gap bridge: from the first side's total, cause by cause, to the last side's total.
//
// Floats are used for the drawing only; every amount that is read stands as the text that the report holds.

import { h, svg } from "./dom.js";
import { amount, isZero, money, plural, words } from "./format.js";

const WIDTH = 1000; // units of the drawing, whatever its width on the screen
const HEIGHT = 24;
const BAR = { y: 4, height: 16 };
const MARGIN = 0.06; // of the width, left free on each side
const THIN_MIN = 4; // units: a step of a cent can still be seen
const ZERO = { amount: "0.00", count: 0 };

export function bridge(currency, sides, { totals, gaps, residual }) {
  const [first, last] = [sides[0], sides[sides.length - 1]];
  const from = totals[first][currency] ?? ZERO;
  const to = totals[last][currency] ?? ZERO;
  const causes = Object.entries(gaps[currency] ?? {});
  if (!isZero(residual[currency])) causes.push(["residual", residual[currency]]);
  const steps = walk(from.amount, causes);
  const values = [Number(from.amount), Number(to.amount), ...steps.flatMap((step) => [step.before, step.after])];
  const scale = scaleOf(values);
  const cutOff = steps.length > 0 && Math.min(...values) !== 0;
  return h("figure", { class: "bridge" },
    h("figcaption", {}, `${currency}: from ${first} to ${last}`),
    h("table", { class: "waterfall" }, h("tbody", {},
      totalRow(first, from, currency, scale, steps.length ? Number(from.amount) : null),
      steps.map((step) => stepRow(step, scale)),
      steps.length ? null : h("tr", {}, h("th", { scope: "row" }, "No gap"), h("td", { class: "drawing" }), h("td", { class: "amount" }, "0")),
      totalRow(last, to, currency, scale, null))),
    cutOff ? h("p", { class: "hint" }, "Bars show the steps; their axis does not begin at 0.") : null);
}

function walk(start, causes) {
  let at = Number(start);
  return causes.map(([cause, text]) => {
    const before = at;
    at += Number(text);
    return { cause, text, before, after: at };
  });
}

/** Totals are far larger than gaps: the axis begins near the smallest value, or the steps would be invisible. */
function scaleOf(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const left = low === 0 ? 0 : WIDTH * MARGIN;
  const right = WIDTH * (1 - MARGIN);
  if (low === high) return () => (low === 0 ? 0 : right);
  return (value) => left + ((value - low) / (high - low)) * (right - left);
}

function totalRow(side, total, currency, scale, link) {
  const end = scale(Number(total.amount));
  const bar = svg("rect", { class: "bar-total", x: 0, y: BAR.y, width: Math.max(end, THIN_MIN), height: BAR.height });
  return h("tr", { class: "total" },
    h("th", { scope: "row" }, side, h("span", { class: "hint" }, ` ${plural(total.count, "record")}`)),
    h("td", { class: "drawing" }, drawing(bar, link === null ? null : connector(scale(link), BAR.y + BAR.height, HEIGHT))),
    h("td", { class: "amount" }, money(total.amount, currency)));
}

function stepRow(step, scale) {
  const [a, b] = [scale(step.before), scale(step.after)];
  const bar = svg("rect", {
    class: step.cause === "residual" ? "bar-residual" : step.text.startsWith("-") ? "bar-less" : "bar-more",
    x: Math.min(a, b), y: BAR.y, width: Math.max(Math.abs(b - a), THIN_MIN), height: BAR.height,
  });
  return h("tr", {},
    h("th", { scope: "row" }, step.cause === "residual" ? "Unexplained" : words(step.cause)),
    h("td", { class: "drawing" }, drawing(connector(a, 0, BAR.y), bar, connector(b, BAR.y + BAR.height, HEIGHT))),
    h("td", { class: "amount" }, amount(step.text, true)));
}

function connector(x, y1, y2) {
  return svg("line", { class: "connector", x1: x, x2: x, y1, y2 });
}

function drawing(...parts) {
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" }, ...parts);
}

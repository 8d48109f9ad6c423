// Budgets: how each stands, its picture, its last reconciliations, and recording what a console says.

import { getExact, getImage, post } from "./api.js";
import { byId, h, notice, show } from "./dom.js";
import { amount, isZero, money, timeElement } from "./format.js";
import { session } from "./session.js";

const ROWS = 10;
const DAYS = 7;
const AMOUNT = "[0-9]{1,38}([.][0-9]{1,18})?";

let turn = 0; // answers of an earlier turn are too late
let images = []; // addresses of pictures, to be given back
const open = new Set(); // budgets whose form is open

export function enter() {
  show(byId("budgets-loading"), !byId("budgets").children.length);
  load();
}

export function leave() {
  turn += 1;
  show(byId("budgets-feedback"), false);
}

/** Forget everything, for the next person who signs in here. */
export function reset() {
  leave();
  clear();
  open.clear();
}

function clear() {
  for (const address of images) URL.revokeObjectURL(address);
  images = [];
  byId("budgets").replaceChildren();
  byId("budgets-overview").replaceChildren();
  for (const id of ["budgets-empty", "budgets-error"]) show(byId(id), false);
}

async function load() {
  turn += 1;
  const mine = turn;
  try {
    const [found, advice, unified] = await Promise.all([
      getExact("/budget/budgets"),
      getExact("/budget/reconciliation/status", { days: DAYS }),
      getExact("/budget/unified"),
    ]);
    const cards = await Promise.all(found.data.map(card));
    if (mine !== turn) return;
    clear();
    byId("budgets").append(...cards);
    byId("budgets-overview").append(...overview(advice, unified, found.data.length));
    show(byId("budgets-empty"), !found.data.length);
  } catch (error) {
    if (mine === turn) notice(byId("budgets-error"), `The budgets could not be loaded: ${error.message}`, load);
  } finally {
    if (mine === turn) show(byId("budgets-loading"), false);
  }
}

function overview(advice, unified, budgets) {
  const odometers = unified.providers.filter((one) => one.kind === "odometer");
  const spent = Object.entries(unified.total_spent).map(([currency, text]) => money(text, currency)).join(" + ");
  return [
    unified.providers.length ? h("p", {}, "Spent over all providers: ", h("strong", {}, spent),
      odometers.length ? `, ${odometers.map((one) => `${money(one.spent, one.currency)} of it at ${one.provider} by its odometer`).join(", ")}.` : ".") : null,
    budgets ? h("h2", {}, `What to do, from the last ${DAYS} days`) : null,
    budgets ? h("ul", { class: "advice" }, advice.recommended_actions.map((action) => h("li", {}, action))) : null,
  ].filter(Boolean);
}

async function card(budget) {
  const named = { budget: budget.budget };
  const [image, history] = await Promise.all([getImage("/budget/picture", named), getExact("/budget/reconciliation/history", { ...named, limit: ROWS })]);
  const address = URL.createObjectURL(image);
  images.push(address);
  const title = `budget-${budget.budget}`;
  return h("article", { class: "rule budget", "aria-labelledby": title },
    h("h2", { id: title }, budget.budget, " ", h("span", { class: "hint" }, budget.provider)),
    budget.ties_out ? null : h("p", { class: "notice error" }, "Its rows do not add up to what was used. Look at its history before anything else."),
    figures(budget),
    form(budget),
    h("div", { class: "picture", tabindex: "0", role: "region", "aria-label": `Picture of ${budget.budget}` }, h("img", { src: address, alt: describe(budget) })),
    rows(history.data));
}

function describe(budget) {
  return `${budget.budget} over time: ${budget.api_usage_tracked} tracked + ${budget.manual_plug_amount} plugs = ${budget.used_budget} ${budget.currency} used of ${budget.total_budget}.`;
}

function figures(budget) {
  const figure = (text, label, main = false) => h("div", { class: main ? "figure main" : "figure" }, h("strong", {}, text), h("span", {}, label));
  const share = budget.plug_share_percent === null ? "" : ` (${budget.plug_share_percent} % of it)`;
  return h("div", { class: "figures" },
    figure(money(budget.remaining_budget, budget.currency), `remain of ${amount(budget.total_budget)}`, true),
    figure(amount(budget.used_budget), "used"),
    figure(amount(budget.api_usage_tracked), "tracked"),
    figure(amount(budget.manual_plug_amount), `plugs${share}`),
    isZero(budget.untaken_usage) ? null : figure(amount(budget.untaken_usage), "tracked since the last reconciliation"));
}

/** What the console says; the difference to the tracking becomes a plug. */
function form(budget) {
  if (!session.mayTriage) return null;
  const ids = `reconcile-${budget.budget}`;
  const remaining = h("input", { id: ids, required: true, inputmode: "decimal", pattern: AMOUNT, autocomplete: "off", placeholder: budget.remaining_budget, title: "an amount such as 19.54" });
  const total = h("input", { inputmode: "decimal", pattern: AMOUNT, autocomplete: "off", placeholder: budget.total_budget, title: "an amount such as 24.96" });
  const reason = h("input", { required: true, maxlength: "255", autocomplete: "off", placeholder: "console read on Monday" });
  const details = h("details", { class: "reconcile", open: open.has(budget.budget), ontoggle: (event) => (event.target.open ? open.add(budget.budget) : open.delete(budget.budget)) },
    h("summary", {}, "Reconcile with the console…"),
    h("form", { class: "fields", onsubmit: (event) => reconcile(event, budget, { remaining, total, reason }) },
      h("label", {}, "The console says is left ", remaining),
      h("label", {}, "New total, if it changed ", total),
      h("label", {}, "Why ", reason),
      h("button", { class: "primary" }, "Record")));
  return details;
}

async function reconcile(event, budget, { remaining, total, reason }) {
  event.preventDefault();
  const button = event.target.querySelector("button");
  const box = byId("budgets-feedback");
  button.disabled = true;
  const body = { budget: budget.budget, remaining_budget: remaining.value.trim(), adjustment_reason: reason.value.trim() };
  if (total.value.trim()) body.total_budget = total.value.trim();
  try {
    const done = await post("/budget/reconcile", body);
    open.delete(budget.budget);
    box.className = "notice ok";
    notice(box, done.recorded.length ? `Recorded: ${budget.budget} ties out again.` : "Nothing differs, so nothing was recorded.");
    await load();
  } catch (error) {
    box.className = "notice error";
    notice(box, error.status === 0 ? `${error.message} Whether it was recorded is not known; see below.` : `Not recorded: ${error.message}`);
    if (error.status === 0) await load();
  } finally {
    button.disabled = false;
    box.scrollIntoView({ block: "nearest" });
  }
}

function rows(found) {
  if (!found.length) return h("p", { class: "hint" }, "Never reconciled.");
  const head = (text, isAmount = false) => h("th", { scope: "col", class: isAmount ? "amount" : null }, text);
  const cell = (text) => h("td", { class: "amount" }, amount(text, true).replace(/^\+/, ""));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Last reconciliations" },
    h("table", { class: "budget-rows" },
      h("caption", { class: "hint" }, found.length === 1 ? "The last reconciliation" : `The last ${found.length} reconciliations, newest first`),
      h("thead", {}, h("tr", {}, head("When"), head("Before", true), head("Adjusted", true), head("After", true), head("Tracked", true), head("Plug", true), head("Why"), head("Who"))),
      h("tbody", {}, found.map((one) => h("tr", {},
        h("td", {}, timeElement(one.created_at)), cell(one.budget_before), cell(one.manual_adjustment), cell(one.budget_after),
        cell(one.api_usage_tracked), cell(one.manual_plug_amount), h("td", { class: "reason" }, one.adjustment_reason), h("td", {}, one.actor))))));
}

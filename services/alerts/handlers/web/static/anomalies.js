// Anomalies: drifts beside the usual and those that lead to a breach, and what is watched at all.

import { get } from "./api.js";
import { byId, h, notice, show } from "./dom.js";
import { ageElement, chip, clock, money, plural, timeElement, words } from "./format.js";

const REFRESH_MS = 60_000; // histories go by the hour
const ROWS = 100;

const body = byId("anomalies-rows");

let turn = 0; // answers of an earlier turn are too late
let timer = null;
let active = false;

export function enter() {
  if (active) return;
  active = true;
  show(byId("anomalies-loading"));
  load();
}

export function leave() {
  active = false;
  turn += 1;
  clearTimeout(timer);
}

/** Forget everything, for the next person who signs in here. */
export function reset() {
  leave();
  body.replaceChildren();
  byId("baselines-rows").replaceChildren();
  for (const id of ["anomalies", "baselines", "baselines-title", "anomalies-empty", "anomalies-error"]) show(byId(id), false);
  byId("anomalies-summary").textContent = "";
}

async function load() {
  turn += 1;
  const mine = turn;
  clearTimeout(timer);
  try {
    const [open, closed, watched] = await Promise.all([
      get("/v1/anomalies", { state: "open", limit: ROWS }),
      get("/v1/anomalies", { state: "closed", limit: 10 }),
      get("/v1/baselines", { limit: ROWS }),
    ]);
    if (mine !== turn) return;
    show(byId("anomalies-error"), false);
    draw(open.data, closed.data, watched.data, watched.next_cursor !== null);
    byId("anomalies-updated").textContent = `Updated ${clock(new Date())}`;
  } catch (error) {
    if (mine !== turn) return;
    notice(byId("anomalies-error"), `Anomalies could not be loaded: ${error.message}`, load);
  } finally {
    if (mine === turn) {
      show(byId("anomalies-loading"), false);
      if (active) timer = setTimeout(tick, REFRESH_MS);
    }
  }
}

function tick() {
  if (document.hidden) timer = setTimeout(tick, REFRESH_MS);
  else load();
}

function draw(open, closed, watched, more) {
  const learning = watched.filter((one) => one.state === "learning").length;
  const of = `${more ? "more than " : ""}${plural(watched.length, "account or check", "accounts and checks")}`;
  byId("anomalies-summary").textContent = watched.length
    ? `${plural(open.length, "open anomaly", "open anomalies")}; ${of} followed, ${learning} of them with too little history yet`
    : "";
  show(byId("anomalies"), open.length + closed.length > 0);
  body.replaceChildren(...[...open, ...closed].map(anomaly));
  show(byId("anomalies-empty"), open.length + closed.length === 0);
  byId("anomalies-empty").textContent = watched.length
    ? "Nothing unusual: every account drifts as it does at this hour."
    : "No balances have been judged yet, so nothing is known of what is usual.";
  for (const id of ["baselines", "baselines-title"]) show(byId(id), watched.length > 0);
  byId("baselines-rows").replaceChildren(...watched.map(baseline));
}

function cell(label, content, attributes = {}) {
  return h("td", { role: "cell", "data-label": label, ...attributes }, content);
}

function name(one) {
  return one.account ? `${one.rule}: ${one.account}` : one.rule;
}

function anomaly(one) {
  return h("tr", { role: "row" },
    cell("Severity", chip("severity", one.severity)),
    cell("Kind", words(one.kind), { class: "type" }),
    cell("Account", name(one), { class: "key" }),
    cell("Usual", money(one.expected, one.currency), { class: "amount" }),
    cell("Seen", money(one.seen, one.currency), { class: "amount" }),
    cell("Breach", one.breach_at ? timeElement(one.breach_at) : "–", { class: "when" }),
    cell("Raised", one.state === "open" ? ageElement(one.raised_at) : ["closed ", ageElement(one.closed_at)], { class: "when" }),
    cell("Explanation", one.explanation, { class: "explanation" }));
}

function baseline(one) {
  return h("tr", { role: "row" },
    cell("Account", name(one), { class: "key" }),
    cell("Usual now", one.expected === null ? "not known yet" : money(one.expected, one.currency), { class: "amount" }),
    cell("Seen", money(one.seen, one.currency), { class: "amount" }),
    cell("Give or take", one.usual_width === null ? "–" : money(one.usual_width, one.currency), { class: "amount" }),
    cell("Last reading", ageElement(one.last_at), { class: "when" }),
    cell("In words", one.sentence, { class: "explanation" }));
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && active) load();
});

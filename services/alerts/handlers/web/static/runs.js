// Runs of every pack: the list, and making one for a day, a month, or the 24 hours up to now.

import { get, post } from "./api.js";
import { byId, h, notice, show } from "./dom.js";
import { ageElement, chip, dayOf, words } from "./format.js";
import { session } from "./session.js";

const REFRESH_MS = 5_000;
const PAGE_ROWS = 50;
const PAGE_ROWS_MAX = 200;
const DAY_MS = 86_400_000;
const PERIOD_DAYS_LONG = 35;

let active = false;
let turn = 0;
let timer = null;
let wanted = PAGE_ROWS;
let drawn = "";

export function enter() {
  active = true;
  show(byId("trigger"), session.mayTriage);
  const yesterday = dayOf(new Date(Date.now() - DAY_MS));
  byId("trigger-day").max = dayOf(new Date());
  byId("trigger-day").value ||= yesterday;
  byId("trigger-month").value ||= yesterday.slice(0, 7);
  if (!session.mayTriage) {
    notice(byId("runs-error"), `Runs and reports need a key with the role owner or manager; yours is ${session.role}.`);
    return;
  }
  show(byId("runs-loading"), !drawn);
  loadPacks();
  load();
}

/** The packs to choose from, in the filter and in the form; what was chosen stays. */
async function loadPacks() {
  let packs = ["billing"];
  try {
    packs = (await get("/v1/runs/packs")).data;
  } catch {
    // The list of runs tells what is wrong.
  }
  for (const [id, first] of [["runs-pack", [["", "every pack"]]], ["trigger-pack", []]]) {
    const select = byId(id);
    const chosen = select.value;
    select.replaceChildren(...[...first, ...packs.map((pack) => [pack, pack])].map(([value, text]) => h("option", { value }, text)));
    select.value = [...select.options].some((option) => option.value === chosen) ? chosen : select.options[0].value;
  }
}

export function leave() {
  active = false;
  turn += 1;
  clearTimeout(timer);
}

export function reset() {
  leave();
  drawn = "";
  wanted = PAGE_ROWS;
  byId("runs-rows").replaceChildren();
  for (const id of ["runs", "runs-empty", "runs-error", "runs-more", "trigger-feedback"]) show(byId(id), false);
}

async function load() {
  turn += 1;
  const mine = turn;
  clearTimeout(timer);
  try {
    const found = [];
    let next = null;
    do {
      const page = await get("/v1/runs", { pack: byId("runs-pack").value, limit: Math.min(PAGE_ROWS_MAX, wanted - found.length), cursor: next });
      found.push(...page.data);
      next = page.next_cursor;
    } while (next && found.length < wanted);
    if (mine !== turn) return;
    show(byId("runs-error"), false);
    draw(found, next);
  } catch (error) {
    if (mine === turn) notice(byId("runs-error"), `The runs could not be loaded: ${error.message}`, load);
  } finally {
    if (mine === turn) {
      show(byId("runs-loading"), false);
      if (active) timer = setTimeout(tick, REFRESH_MS);
    }
  }
}

function tick() {
  if (document.hidden) timer = setTimeout(tick, REFRESH_MS);
  else load();
}

function draw(found, next) {
  show(byId("runs"), found.length > 0);
  show(byId("runs-empty"), found.length === 0);
  show(byId("runs-more"), next !== null);
  const now = JSON.stringify(found);
  if (now === drawn) return;
  drawn = now;
  const focused = document.activeElement?.closest?.("#runs-rows a")?.getAttribute("href");
  byId("runs-rows").replaceChildren(...found.map(row));
  if (focused) [...byId("runs-rows").querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

/** A run's period as people write it: a day, a month, its first and last day, or from when to when. */
export function periodText({ start, end }) {
  if (start.includes("T")) return `${start.slice(0, 16).replace("T", " ")} – ${end.slice(0, 10) === start.slice(0, 10) ? end.slice(11, 16) : end.slice(0, 16).replace("T", " ")}`;
  const days = Math.round((Date.parse(end) - Date.parse(start)) / DAY_MS);
  if (days === 1) return start;
  if (start.endsWith("-01") && end.endsWith("-01") && days < PERIOD_DAYS_LONG) return start.slice(0, 7);
  return `${start} – ${new Date(Date.parse(end) - DAY_MS).toISOString().slice(0, 10)}`;
}

export function verdictOf(run) {
  return run.summary?.verdict ?? { running: "provisional", completed: "complete" }[run.status] ?? run.status;
}

function row(run) {
  const rules = Object.entries(run.summary?.rules ?? {});
  const cell = (label, content, attributes = {}) => h("td", { role: "cell", "data-label": label, ...attributes }, content);
  return h("tr", { role: "row" },
    cell("Period", h("a", { href: `#/runs/${encodeURIComponent(run.id)}`, class: "key" }, periodText(run.period))),
    cell("Pack", h("div", {}, run.pack, h("p", { class: "hint" }, run.run_type))),
    cell("Verdict", [chip("verdict", run.status === "failed" ? "failed" : run.stage === "running" ? "running" : verdictOf(run)), run.error ? h("p", { class: "hint" }, run.error) : null]),
    cell("Matched", matched(rules)),
    cell("Open", rules.length ? h("ul", { class: "plain" }, rules.map(([name, one]) => h("li", {}, one.open.toLocaleString("en"), h("span", { class: "narrow" }, ` ${titleOf(name)}`)))) : "–", { class: "amount" }),
    cell("Took", run.duration_ms === null ? "–" : `${(run.duration_ms / 1000).toFixed(1)} s`, { class: "amount" }),
    cell("Made", ageElement(run.created_at), { class: "when" }),
    cell("By", run.trigger === "daily" ? "daily run" : run.requested_by, { class: "by" }));
}

const titleOf = (name) => words(name.split(".").pop());

function matched(rules) {
  if (!rules.length) return "–";
  return h("ul", { class: "plain" }, rules.map(([name, one]) =>
    h("li", {}, h("span", { class: "percent" }, one.matched_percent === null ? "–" : `${one.matched_percent} %`), " ", titleOf(name))));
}

async function trigger(event) {
  event.preventDefault();
  const period = chosenPeriod();
  const pack = byId("trigger-pack").value;
  const button = byId("trigger-button");
  const box = byId("trigger-feedback");
  button.disabled = true;
  box.className = "notice wait";
  notice(box, `Reconciling ${pack}, ${period ?? "the last 24 hours"}… This takes up to ten seconds.`);
  try {
    const run = await post("/v1/runs", { period, pack });
    show(box, false);
    location.hash = `#/runs/${encodeURIComponent(run.id)}`;
  } catch (error) {
    box.className = "notice error";
    notice(box, `No run was made: ${error.message}`);
    load();
  } finally {
    button.disabled = false;
  }
}

function chosenPeriod() {
  if (byId("trigger-span-now").checked) return null;
  return byId(byId("trigger-span-month").checked ? "trigger-month" : "trigger-day").value;
}

function chooseSpan() {
  for (const span of ["day", "month"]) {
    const chosen = byId(`trigger-span-${span}`).checked;
    show(byId(`trigger-${span}-label`), chosen);
    byId(`trigger-${span}`).required = chosen;
  }
}

byId("trigger").addEventListener("submit", trigger);
for (const span of ["day", "month", "now"]) byId(`trigger-span-${span}`).addEventListener("change", chooseSpan);
byId("runs-pack").addEventListener("change", load);
byId("runs-more").addEventListener("click", () => {
  wanted += PAGE_ROWS;
  load();
});

// Dead letters: what was accepted and could not be used. The list, its filters, and a refresh that keeps the reader's place.

import { get } from "./api.js";
import { byId, h, notice, options, show } from "./dom.js";
import { age, ageElement, chip, clock, plural, words } from "./format.js";

const REFRESH_MS = 10_000; // seldom looked at, and they come seldom
const PAGE_ROWS = 50;
const PAGE_ROWS_MAX = 200;
const STATES = ["open", "replayed", "dismissed", ""];
const NO_FILTER = { state: "open", reason: "", source: "", rule: "" };

const body = byId("letters-rows");

let filter = { ...NO_FILTER };
let counts = [];
let wanted = PAGE_ROWS;
let drawn = "";
let turn = 0; // answers of an earlier turn are too late
let timer = null;
let active = false;

/** Show the list; `parameters` null keeps the filters (a letter was opened over it). */
export function enter(parameters) {
  const first = !active;
  active = true;
  const next = parameters ? read(parameters) : filter;
  const changed = JSON.stringify(next) !== JSON.stringify(filter);
  filter = next;
  drawFilters();
  if (first || changed) reload();
  else mark();
}

export function leave() {
  active = false;
  turn += 1;
  clearTimeout(timer);
}

/** Forget everything, for the next person who signs in here. */
export function reset() {
  leave();
  filter = { ...NO_FILTER };
  counts = [];
  clear();
}

/** The address of the list as it is filtered now. */
export function address() {
  const given = Object.entries(filter).filter(([name, value]) => value !== NO_FILTER[name]);
  return given.length ? `#/dead-letters?${new URLSearchParams(given)}` : "#/dead-letters";
}

/** Load again now: somebody has acted. */
export function refresh() {
  if (active) load();
}

function read(parameters) {
  const next = { ...NO_FILTER };
  for (const name of Object.keys(next)) if (parameters.has(name)) next[name] = parameters.get(name);
  return next;
}

function clear() {
  drawn = "";
  body.replaceChildren();
  for (const id of ["letters", "letters-more", "letters-empty", "letters-error"]) show(byId(id), false);
  byId("letters-summary").textContent = "";
}

function reload() {
  clear();
  wanted = PAGE_ROWS;
  show(byId("letters-loading"));
  return load();
}

async function load() {
  turn += 1;
  const mine = turn;
  clearTimeout(timer);
  try {
    const [page, counted] = await Promise.all([rows(), get("/v1/dead-letter-counts")]);
    if (mine !== turn) return;
    counts = counted.data;
    show(byId("letters-error"), false);
    draw(page.rows, page.next);
    drawFilters();
    byId("letters-updated").textContent = `Updated ${clock(new Date())}`;
  } catch (error) {
    if (mine !== turn) return;
    const kept = body.children.length ? " What is shown may be out of date." : "";
    notice(byId("letters-error"), `The list could not be loaded: ${error.message}${kept}`, load);
  } finally {
    if (mine === turn) {
      show(byId("letters-loading"), false);
      if (active) timer = setTimeout(tick, REFRESH_MS);
    }
  }
}

function tick() {
  if (document.hidden) timer = setTimeout(tick, REFRESH_MS);
  else load();
}

async function rows() {
  const found = [];
  let next = null;
  do {
    const limit = Math.min(PAGE_ROWS_MAX, wanted - found.length);
    const page = await get("/v1/dead-letters", { ...filter, limit, cursor: next });
    found.push(...page.data);
    next = page.next_cursor;
  } while (next && found.length < wanted);
  return { rows: found, next };
}

async function more() {
  const place = body.children.length;
  const button = byId("letters-more");
  button.disabled = true;
  wanted = place + PAGE_ROWS;
  await load();
  button.disabled = false;
  // The reader goes on where the new rows begin, also with the keyboard.
  body.children[place]?.querySelector("a")?.focus();
}

function draw(found, next) {
  show(byId("letters"), found.length > 0);
  show(byId("letters-more"), next !== null);
  show(byId("letters-empty"), found.length === 0);
  byId("letters-empty").textContent = emptyText();
  const total = sum(filter);
  const of = total > found.length ? ` of ${total.toLocaleString("en")}` : "";
  byId("letters-summary").textContent = found.length ? `${plural(found.length, "dead letter")}${of}, received last first` : "";
  const now = JSON.stringify(found);
  if (now === drawn) {
    for (const one of body.querySelectorAll(".age")) one.textContent = age(one.getAttribute("datetime"));
    return;
  }
  drawn = now;
  const focused = document.activeElement?.closest?.("#letters-rows tr")?.dataset.id;
  body.replaceChildren(...found.map(row));
  if (focused) [...body.children].find((one) => one.dataset.id === focused)?.querySelector("a").focus();
  mark();
}

function emptyText() {
  const { state, ...others } = filter;
  if (Object.values(others).some(Boolean)) return "Nothing matches these filters.";
  if (state === "open") return "No open dead letters: everything that came in was understood, or somebody has dealt with it.";
  return state ? `No dead letter is ${state}.` : "No dead letters: everything that came in was understood.";
}

function row(one) {
  const cell = (label, content, attributes = {}) => h("td", { role: "cell", "data-label": label, ...attributes }, content);
  const address = `#/dead-letters/${encodeURIComponent(one.id)}`;
  const open = (event) => {
    // Text may be marked and copied without opening the row.
    if (!event.target.closest("a") && !String(getSelection())) location.hash = address;
  };
  return h("tr", { role: "row", "data-id": one.id, onclick: open },
    cell("Reason", words(one.reason), { class: "type" }),
    cell("Event", h("a", { href: address, class: "key" }, one.event ?? "one request")),
    cell("Source", one.source ?? "–"),
    cell("Received", ageElement(one.received_at), { class: "when" }),
    cell("State", chip("letter", one.state)),
    cell("What is wrong", one.detail, { class: "detail" }),
    cell("What to do", one.hint, { class: "todo" }));
}

function mark() {
  const open = /^#\/dead-letters\/([^?]+)/.exec(location.hash)?.[1];
  for (const one of body.children) one.classList.toggle("chosen", encodeURIComponent(one.dataset.id) === open);
}

function sum(by) {
  const names = Object.keys(NO_FILTER);
  return counts.filter((one) => names.every((name) => !by[name] || one[name] === by[name])).reduce((total, one) => total + one.count, 0);
}

function drawFilters() {
  for (const name of ["reason", "source", "rule"]) {
    const known = [...counts.map((one) => one[name]), filter[name]].filter(Boolean);
    options(byId(`letters-filter-${name}`), [...new Set(known)].sort(), "any");
    byId(`letters-filter-${name}`).value = filter[name];
  }
  drawStates();
  show(byId("letters-filter-clear"), JSON.stringify(filter) !== JSON.stringify(NO_FILTER));
}

function drawStates() {
  const box = byId("letters-filter-state");
  if (box.children.length === 1) {
    for (const state of STATES) {
      const input = h("input", { type: "radio", name: "letter-state", value: state, onchange: () => choose({ state }) });
      box.append(h("label", {}, input, h("span", {}, state || "all", " ", h("span", { class: "count" }))));
    }
  }
  STATES.forEach((state, place) => {
    const label = box.children[place + 1];
    label.querySelector("input").checked = filter.state === state;
    label.querySelector(".count").textContent = sum({ ...filter, state }).toLocaleString("en");
  });
}

function choose(change) {
  filter = { ...filter, ...change };
  history.replaceState(null, "", address());
  drawFilters();
  reload();
}

byId("letters-filters").addEventListener("submit", (event) => event.preventDefault());
for (const name of ["reason", "source", "rule"]) {
  byId(`letters-filter-${name}`).addEventListener("change", (event) => choose({ [name]: event.target.value }));
}
byId("letters-filter-clear").addEventListener("click", () => choose({ ...NO_FILTER }));
byId("letters-more").addEventListener("click", more);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});

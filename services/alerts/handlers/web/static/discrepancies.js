// The list: filters, counts, pages, and a refresh that keeps the reader's place, selection and focus.

import { get } from "./api.js";
import { byId, h, notice, options, show } from "./dom.js";
import { age, ageElement, amount, chip, clock, keyText, plural, timeElement, words } from "./format.js";

const REFRESH_MS = 5_000;
const REFRESH_AFTER_ERROR_MS = 15_000;
const COUNTS_EVERY_MS = 15_000; // counting reads every row of the organisation, a page only its own
const PAGE_ROWS = 50;
const PAGE_ROWS_MAX = 200;
const SEVERITIES = ["critical", "high", "medium", "low"];
const STATUSES = ["open", "acknowledged", "resolved", ""];
const NO_FILTER = { status: "open", state: "", type: "", rule: "", severity: "", key: "", cluster: "", shadow: "" };

const table = byId("list");
const body = byId("list-rows");

let filter = { ...NO_FILTER };
let shown = new Map(); // id -> { row, text }
let wanted = PAGE_ROWS; // how many rows the reader asked for
let cursor = null;
let counts = [];
let countsFrom = -Infinity; // when they were stored
let turn = 0; // answers of an earlier turn are too late
let timer = null;
let active = false;

/** Show the list; `parameters` null keeps the filters (a detail was opened over it). */
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
  countsFrom = -Infinity;
  drawFeeds([]);
  clear();
}

/** The address of the list as it is filtered now. */
export function address() {
  const given = Object.entries(filter).filter(([name, value]) => value !== NO_FILTER[name]);
  return given.length ? `#/discrepancies?${new URLSearchParams(given)}` : "#/discrepancies";
}

/** Load again now, with fresh counts: an action has changed something. */
export function refresh() {
  countsFrom = -Infinity;
  if (active) load();
}

function read(parameters) {
  const next = { ...NO_FILTER };
  for (const name of Object.keys(next)) if (parameters.has(name)) next[name] = parameters.get(name);
  return next;
}

function clear() {
  shown = new Map();
  body.replaceChildren();
  cursor = null;
  show(table, false);
  for (const id of ["list-more", "list-empty", "list-error"]) show(byId(id), false);
  byId("list-summary").textContent = "";
}

function reload() {
  clear();
  wanted = PAGE_ROWS;
  show(byId("list-loading"));
  return load();
}

async function load() {
  turn += 1;
  const mine = turn;
  clearTimeout(timer);
  let pause = REFRESH_MS;
  try {
    const [page, counted] = await Promise.all([rows(), kinds()]);
    if (mine !== turn) return;
    if (counted) {
      counts = counted.kinds;
      drawFeeds(counted.feeds);
      countsFrom = performance.now();
    }
    cursor = page.next;
    show(byId("list-error"), false);
    draw(page.rows);
    drawFilters();
    byId("list-updated").textContent = `Updated ${clock(new Date())}`;
  } catch (error) {
    if (mine !== turn) return;
    pause = REFRESH_AFTER_ERROR_MS;
    const kept = shown.size ? " What is shown may be out of date." : "";
    notice(byId("list-error"), `The list could not be loaded: ${error.message}${kept}`, load);
  } finally {
    if (mine === turn) {
      show(byId("list-loading"), false);
      if (active) timer = setTimeout(tick, pause);
    }
  }
}

function tick() {
  if (document.hidden || !byId("list-follow").checked) {
    timer = setTimeout(tick, REFRESH_MS);
    return;
  }
  load();
}

/** How many there are of each kind, and which feeds are silent; null while the last counts are fresh enough. */
async function kinds() {
  if (performance.now() - countsFrom < COUNTS_EVERY_MS) return null;
  const [counted, feeds] = await Promise.all([get("/v1/discrepancy-counts"), silentFeeds()]);
  return { kinds: counted.data, feeds };
}

/** Feeds that are silent, and those that something waits for still; their absence keeps nobody from the list. */
async function silentFeeds() {
  try {
    return (await get("/v1/feeds")).data.filter((feed) => feed.silent_since !== null || feed.waiting > 0);
  } catch {
    return [];
  }
}

function drawFeeds(found) {
  byId("feeds").replaceChildren(
    ...found.map((feed) => {
      const state = feed.silent_since ? [" is silent since ", timeElement(feed.silent_since)] : [" was quiet"];
      const waits = feed.waiting ? `; ${plural(feed.waiting, "record")} without a counterpart from it ${feed.waiting === 1 ? "waits" : "wait"}` : "";
      return h("li", {}, h("strong", {}, feed.source), ...state, `${waits}.`);
    }),
  );
  show(byId("feeds"), found.length > 0);
}

async function rows() {
  const found = [];
  let next = null;
  do {
    const limit = Math.min(PAGE_ROWS_MAX, wanted - found.length);
    const page = await get("/v1/discrepancies", { ...filter, limit, cursor: next });
    found.push(...page.data);
    next = page.next_cursor;
  } while (next && found.length < wanted);
  return { rows: found, next };
}

async function more() {
  const place = shown.size;
  const button = byId("list-more");
  button.disabled = true;
  wanted = place + PAGE_ROWS;
  await load();
  button.disabled = false;
  // The reader goes on where the new rows begin, also with the keyboard.
  body.children[place]?.querySelector("a")?.focus();
}

/** Bring the rows up to date in place: a row that stays is the same element, so focus and selection stay too. */
function draw(found) {
  const ids = new Set(found.map((one) => one.id));
  let focusAgain = null;
  for (const [id, { row }] of shown) {
    if (ids.has(id)) continue;
    if (row.contains(document.activeElement)) focusAgain = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    shown.delete(id);
  }
  let place = body.firstElementChild;
  for (const one of found) {
    const entry = shown.get(one.id) ?? { row: makeRow(one.id), text: "" };
    const text = JSON.stringify(one);
    if (text !== entry.text) fillRow(entry.row, one);
    else entry.row.querySelector(".age").textContent = age(one.raised_at);
    entry.text = text;
    shown.set(one.id, entry);
    if (entry.row === place) place = place.nextElementSibling;
    else body.insertBefore(entry.row, place);
  }
  if (focusAgain?.isConnected) focusAgain.querySelector("a").focus();
  mark();
  show(table, found.length > 0);
  show(byId("list-more"), cursor !== null);
  show(byId("list-empty"), found.length === 0);
  byId("list-empty").textContent = emptyText();
  const total = sum((one) => matches(one, filter));
  drawCluster(found);
  const of = filter.key || filter.cluster ? (cursor ? " and more" : "") : total > found.length ? ` of ${total.toLocaleString("en")}` : "";
  byId("list-summary").textContent = found.length ? `${plural(found.length, "discrepancy", "discrepancies")}${of}, raised last first` : "";
}

function emptyText() {
  const { status, ...others } = filter;
  if (Object.values(others).some(Boolean)) return "Nothing matches these filters.";
  if (status === "open") return "Nothing open: the records agree.";
  return status ? `Nothing is ${status}.` : "No discrepancy was ever raised: the records agree.";
}

function makeRow(id) {
  const row = h("tr", { role: "row", "data-id": id });
  row.addEventListener("click", (event) => {
    // Text may be marked and copied without opening the row.
    if (event.target.closest("a") || String(getSelection())) return;
    location.hash = `#/discrepancies/${encodeURIComponent(id)}`;
  });
  return row;
}

function fillRow(row, one) {
  const focused = row.contains(document.activeElement);
  const cell = (label, content, attributes = {}) => h("td", { role: "cell", "data-label": label, ...attributes }, content);
  const difference = one.difference === null ? differing(one) : [amount(one.difference, true), " ", h("span", { class: "currency" }, one.currency ?? "")];
  row.replaceChildren(
    cell("Severity", chip("severity", one.severity)),
    cell("Type", words(one.type), { class: "type", title: `${one.type}, rule ${one.rule}` }),
    cell("Key", h("a", { href: `#/discrepancies/${encodeURIComponent(one.id)}`, class: "key" }, keyText(one.key))),
    cell("Difference", difference, { class: "amount" }),
    cell("State", [chip("state", one.state), one.shadow ? chip("shadow", "shadow") : null]),
    cell("Status", [chip("status", one.status), one.assignee ? h("span", { class: "assignee" }, one.assignee) : null]),
    cell("Raised", ageElement(one.raised_at), { class: "when" }),
    cell("Explanation", [one.explanation, nearMiss(one), clusterChip(one)], { class: "explanation" }),
  );
  if (focused) row.querySelector("a").focus();
}

function nearMiss(one) {
  return one.near_miss ? h("span", { class: "near-miss" }, ` ${one.near_miss.sentence}`) : null;
}

/** What it shares its cause with; press to see only those. */
function clusterChip(one) {
  if (!one.cluster || filter.cluster) return null;
  return h("a", { class: "chip cluster", href: `#/discrepancies?status=&cluster=${encodeURIComponent(one.cluster.id)}`, title: one.cluster.sentence },
    `one of ${one.cluster.size.toLocaleString("en")}`);
}

/** The sentence of the cluster that is shown, above its rows. */
function drawCluster(found) {
  const cluster = filter.cluster ? found.find((one) => one.cluster)?.cluster : null;
  byId("list-cluster").textContent = cluster ? cluster.sentence : filter.cluster ? "This cluster is no more: its discrepancies were resolved." : "";
  show(byId("list-cluster"), Boolean(filter.cluster));
}

/** Two statuses or currencies that differ have no difference in money: show them both. */
function differing(one) {
  return one.expected && one.actual ? h("span", { class: "differing" }, `${one.expected} ≠ ${one.actual}`) : "–";
}

function mark() {
  const open = /^#\/discrepancies\/([^?]+)/.exec(location.hash)?.[1];
  for (const [id, { row }] of shown) row.classList.toggle("chosen", encodeURIComponent(id) === open);
}

function matches(one, by) {
  if (by.shadow !== "any" && one.shadow !== (by.shadow === "true")) return false;
  return ["status", "state", "type", "rule", "severity"].every((name) => !by[name] || one[name] === by[name]);
}

function sum(keep) {
  return counts.filter(keep).reduce((total, one) => total + one.count, 0);
}

function drawFilters() {
  const names = (name) => [...new Set([...counts.map((one) => one[name]), ...(filter[name] ? [filter[name]] : [])])].sort();
  options(byId("filter-type"), names("type"), "any");
  options(byId("filter-rule"), names("rule"), "any");
  for (const name of ["state", "type", "rule", "shadow", "key"]) {
    const field = byId(`filter-${name}`);
    if (document.activeElement !== field || name !== "key") field.value = filter[name];
  }
  drawStatuses();
  drawSeverities();
  show(byId("filter-clear"), JSON.stringify(filter) !== JSON.stringify(NO_FILTER));
}

function drawStatuses() {
  const box = byId("filter-status");
  if (box.children.length === 1) {
    for (const status of STATUSES) {
      const input = h("input", { type: "radio", name: "status", value: status, onchange: () => choose({ status }) });
      box.append(h("label", {}, input, h("span", {}, status || "all", " ", h("span", { class: "count" }))));
    }
  }
  STATUSES.forEach((status, place) => {
    const label = box.children[place + 1];
    label.querySelector("input").checked = filter.status === status;
    label.querySelector(".count").textContent = sum((one) => matches(one, { ...filter, status })).toLocaleString("en");
  });
}

function drawSeverities() {
  const box = byId("severities");
  if (!box.children.length) {
    for (const severity of SEVERITIES) {
      const press = () => choose({ severity: filter.severity === severity ? "" : severity });
      box.append(
        h("button", { type: "button", class: `tile severity-${severity}`, onclick: press },
          h("span", { class: "count" }), h("span", {}, severity)),
      );
    }
  }
  SEVERITIES.forEach((severity, place) => {
    const tile = box.children[place];
    tile.setAttribute("aria-pressed", String(filter.severity === severity));
    tile.querySelector(".count").textContent = sum((one) => matches(one, { ...filter, severity })).toLocaleString("en");
  });
}

function choose(change) {
  filter = { ...filter, ...change };
  history.replaceState(null, "", address());
  drawFilters();
  reload();
}

byId("filters").addEventListener("submit", (event) => {
  event.preventDefault();
  choose({ key: byId("filter-key").value.trim() });
});
for (const name of ["state", "type", "rule", "shadow"]) byId(`filter-${name}`).addEventListener("change", (event) => choose({ [name]: event.target.value }));
byId("filter-key").addEventListener("search", () => {
  const key = byId("filter-key").value.trim();
  if (key !== filter.key) choose({ key });
});
byId("filter-clear").addEventListener("click", () => {
  byId("filter-key").value = "";
  choose({ ...NO_FILTER });
});
byId("list-more").addEventListener("click", more);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && byId("list-follow").checked) refresh();
});

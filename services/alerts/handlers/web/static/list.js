// A list for people: filters in the address, counts, pages, and a refresh that keeps the reader's place, selection and focus.

import { get } from "./api.js";
import { byId, h, notice, options, show } from "./dom.js";
import { age, clock } from "./format.js";

const AFTER_ERROR_MS = 15_000;
const PAGE_ROWS = 50;
const PAGE_ROWS_MAX = 200;

/**
 * Make a list over the elements `<name>`, `<name>-rows`, `<name>-more`, `<name>-filter-…`.
 *
 * of.name, of.address ("#/…"), of.api: where it stands, how it is addressed, what it loads.
 * of.noFilter: every filter with the value that means none. of.choice: the one shown as segments, with its values.
 * of.known: filters offered from the counts. of.fixed: selects whose options stand in the page.
 * of.counts(): kinds with their `count`, asked for every of.countsEveryMs. of.matches(kind, filter).
 * of.cells(one, cell, filter): a row's cells. of.time(one): the time whose age is shown.
 * of.summary(rows, total, more), of.empty(filter): sentences. of.follow(): whether it refreshes by itself.
 * of.drawn(rows, filter), of.drawnFilters(filter, sum): what else the view shows.
 */
export function list(of) {
  const part = (suffix) => byId(`${of.name}-${suffix}`);
  const table = byId(of.name);
  const body = part("rows");
  let filter = { ...of.noFilter };
  let shown = new Map(); // id -> { row, text }
  let wanted = PAGE_ROWS; // how many rows the reader asked for
  let cursor = null;
  let counts = [];
  let countsFrom = -Infinity; // when they were stored
  let turn = 0; // answers of an earlier turn are too late
  let timer = null;
  let active = false;

  const sum = (by) => counts.filter((one) => of.matches(one, by)).reduce((total, one) => total + one.count, 0);
  const isFiltered = () => JSON.stringify(filter) !== JSON.stringify(of.noFilter);
  const addressOf = (id) => `${of.address}/${encodeURIComponent(id)}`;

  /** Show the list; `parameters` null keeps the filters (something was opened over it). */
  function enter(parameters) {
    const first = !active;
    active = true;
    const next = parameters ? read(parameters) : filter;
    const changed = JSON.stringify(next) !== JSON.stringify(filter);
    filter = next;
    drawFilters();
    if (first || changed) reload();
    else mark();
  }

  function leave() {
    active = false;
    turn += 1;
    clearTimeout(timer);
  }

  /** Forget everything, for the next person who signs in here. */
  function reset() {
    leave();
    filter = { ...of.noFilter };
    counts = [];
    countsFrom = -Infinity;
    clear();
  }

  /** The address of the list as it is filtered now. */
  function address() {
    const given = Object.entries(filter).filter(([name, value]) => value !== of.noFilter[name]);
    return given.length ? `${of.address}?${new URLSearchParams(given)}` : of.address;
  }

  /** Load again now, with fresh counts: an action has changed something. */
  function refresh() {
    countsFrom = -Infinity;
    if (active) load();
  }

  function choose(change) {
    if (Object.entries(change).every(([name, value]) => filter[name] === value)) return;
    filter = { ...filter, ...change };
    history.replaceState(null, "", address());
    drawFilters();
    reload();
  }

  function read(parameters) {
    const next = { ...of.noFilter };
    for (const name of Object.keys(next)) if (parameters.has(name)) next[name] = parameters.get(name);
    return next;
  }

  function clear() {
    shown = new Map();
    body.replaceChildren();
    cursor = null;
    show(table, false);
    for (const suffix of ["more", "empty", "error"]) show(part(suffix), false);
    part("summary").textContent = "";
  }

  function reload() {
    clear();
    wanted = PAGE_ROWS;
    show(part("loading"));
    return load();
  }

  async function load() {
    turn += 1;
    const mine = turn;
    clearTimeout(timer);
    let pause = of.refreshMs;
    try {
      const stale = performance.now() - countsFrom >= of.countsEveryMs;
      const [page, counted] = await Promise.all([rows(), stale ? of.counts() : null]);
      if (mine !== turn) return;
      if (counted) {
        counts = counted;
        countsFrom = performance.now();
      }
      cursor = page.next;
      show(part("error"), false);
      draw(page.rows);
      drawFilters();
      part("updated").textContent = `Updated ${clock(new Date())}`;
    } catch (error) {
      if (mine !== turn) return;
      pause = AFTER_ERROR_MS;
      const kept = shown.size ? " What is shown may be out of date." : "";
      notice(part("error"), `The list could not be loaded: ${error.message}${kept}`, load);
    } finally {
      if (mine === turn) {
        show(part("loading"), false);
        if (active) timer = setTimeout(tick, pause);
      }
    }
  }

  function tick() {
    if (document.hidden || !of.follow()) timer = setTimeout(tick, of.refreshMs);
    else load();
  }

  async function rows() {
    const found = [];
    let next = null;
    do {
      const limit = Math.min(PAGE_ROWS_MAX, wanted - found.length);
      const page = await get(of.api, { ...filter, limit, cursor: next });
      found.push(...page.data);
      next = page.next_cursor;
    } while (next && found.length < wanted);
    return { rows: found, next };
  }

  async function more() {
    const place = shown.size;
    part("more").disabled = true;
    wanted = place + PAGE_ROWS;
    await load();
    part("more").disabled = false;
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
      else entry.row.querySelector(".age").textContent = age(of.time(one));
      entry.text = text;
      shown.set(one.id, entry);
      if (entry.row === place) place = place.nextElementSibling;
      else body.insertBefore(entry.row, place);
    }
    if (focusAgain?.isConnected) focusAgain.querySelector("a").focus();
    mark();
    show(table, found.length > 0);
    show(part("more"), cursor !== null);
    show(part("empty"), found.length === 0);
    part("empty").textContent = of.empty(filter);
    part("summary").textContent = found.length ? of.summary(found.length, sum(filter), cursor !== null, filter) : "";
    of.drawn?.(found, filter);
  }

  function makeRow(id) {
    const row = h("tr", { role: "row", "data-id": id });
    row.addEventListener("click", (event) => {
      // Text may be marked and copied without opening the row.
      if (!event.target.closest("a") && !String(getSelection())) location.hash = addressOf(id);
    });
    return row;
  }

  function fillRow(row, one) {
    const focused = row.contains(document.activeElement);
    const cell = (label, content, attributes = {}) => h("td", { role: "cell", "data-label": label, ...attributes }, content);
    row.replaceChildren(...of.cells(one, cell, { filter, address: addressOf(one.id) }));
    if (focused) row.querySelector("a").focus();
  }

  function mark() {
    const open = location.hash.startsWith(`${of.address}/`) ? location.hash.slice(of.address.length + 1).split("?")[0] : null;
    for (const [id, { row }] of shown) row.classList.toggle("chosen", encodeURIComponent(id) === open);
  }

  function drawFilters() {
    for (const name of of.known) {
      const known = [...counts.map((one) => one[name]), filter[name]].filter(Boolean);
      options(part(`filter-${name}`), [...new Set(known)].sort(), "any");
    }
    for (const name of [...of.known, ...of.fixed]) part(`filter-${name}`).value = filter[name];
    drawChoice();
    of.drawnFilters?.(filter, sum);
    show(part("filter-clear"), isFiltered());
  }

  /** The filter that is always in sight, with how many there are of each. */
  function drawChoice() {
    const { name, values } = of.choice;
    const box = part(`filter-${name}`);
    if (box.children.length === 1) {
      for (const value of values) {
        const input = h("input", { type: "radio", name: `${of.name}-${name}`, value, onchange: () => choose({ [name]: value }) });
        box.append(h("label", {}, input, h("span", {}, value || "all", " ", h("span", { class: "count" }))));
      }
    }
    values.forEach((value, place) => {
      const label = box.children[place + 1];
      label.querySelector("input").checked = filter[name] === value;
      label.querySelector(".count").textContent = sum({ ...filter, [name]: value }).toLocaleString("en");
    });
  }

  part("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const name of [...of.known, ...of.fixed]) {
    part(`filter-${name}`).addEventListener("change", (event) => choose({ [name]: event.target.value }));
  }
  part("filter-clear").addEventListener("click", () => choose({ ...of.noFilter }));
  part("more").addEventListener("click", more);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && of.follow()) refresh();
  });
  return { enter, leave, reset, address, refresh, choose };
}

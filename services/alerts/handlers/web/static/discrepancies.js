// The discrepancies: what is open, how severe it is, and which feeds are silent.

import { get } from "./api.js";
import { byId, h, show } from "./dom.js";
import { ageElement, amount, chip, keyText, plural, timeElement, words } from "./format.js";
import { list } from "./list.js";

const REFRESH_MS = 5_000;
const COUNTS_EVERY_MS = 15_000; // counting reads every row of the organisation, a page only its own
const SEVERITIES = ["critical", "high", "medium", "low"];

const view = list({
  name: "list",
  address: "#/discrepancies",
  api: "/v1/discrepancies",
  noFilter: { status: "open", state: "", type: "", rule: "", severity: "", key: "", cluster: "", shadow: "" },
  choice: { name: "status", values: ["open", "acknowledged", "resolved", ""] },
  known: ["type", "rule"],
  fixed: ["state", "shadow"],
  refreshMs: REFRESH_MS,
  countsEveryMs: COUNTS_EVERY_MS,
  follow: () => byId("list-follow").checked,
  counts,
  matches,
  time: (one) => one.raised_at,
  cells,
  summary,
  empty,
  drawn: drawCluster,
  drawnFilters,
});

export const { enter, leave, address, refresh } = view;

/** Forget everything, for the next person who signs in here. */
export function reset() {
  view.reset();
  drawFeeds([]);
}

async function counts() {
  const [counted, feeds] = await Promise.all([get("/v1/discrepancy-counts"), silentFeeds()]);
  drawFeeds(feeds);
  return counted.data;
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

function matches(one, by) {
  if (by.shadow !== "any" && one.shadow !== (by.shadow === "true")) return false;
  return ["status", "state", "type", "rule", "severity"].every((name) => !by[name] || one[name] === by[name]);
}

function cells(one, cell, { filter, address: where }) {
  const difference = one.difference === null ? differing(one) : [amount(one.difference, true), " ", h("span", { class: "currency" }, one.currency ?? "")];
  return [
    cell("Severity", chip("severity", one.severity)),
    cell("Type", words(one.type), { class: "type", title: `${one.type}, rule ${one.rule}` }),
    cell("Key", h("a", { href: where, class: "key" }, keyText(one.key))),
    cell("Difference", difference, { class: "amount" }),
    cell("State", [chip("state", one.state), one.shadow ? chip("shadow", "shadow") : null]),
    cell("Status", [chip("status", one.status), one.assignee ? h("span", { class: "assignee" }, one.assignee) : null]),
    cell("Raised", ageElement(one.raised_at), { class: "when" }),
    cell("Explanation", [one.explanation, nearMiss(one), clusterChip(one, filter)], { class: "explanation" }),
  ];
}

/** Two statuses or currencies that differ have no difference in money: show them both. */
function differing(one) {
  return one.expected && one.actual ? h("span", { class: "differing" }, `${one.expected} ≠ ${one.actual}`) : "–";
}

function nearMiss(one) {
  return one.near_miss ? h("span", { class: "near-miss" }, ` ${one.near_miss.sentence}`) : null;
}

/** What it shares its cause with; press to see only those. */
function clusterChip(one, filter) {
  if (!one.cluster || filter.cluster) return null;
  return h("a", { class: "chip cluster", href: `#/discrepancies?status=&cluster=${encodeURIComponent(one.cluster.id)}`, title: one.cluster.sentence },
    `one of ${one.cluster.size.toLocaleString("en")}`);
}

/** The sentence of the cluster that is shown, above its rows. */
function drawCluster(found, filter) {
  const cluster = filter.cluster ? found.find((one) => one.cluster)?.cluster : null;
  byId("list-cluster").textContent = cluster ? cluster.sentence : filter.cluster ? "This cluster is no more: its discrepancies were resolved." : "";
  show(byId("list-cluster"), Boolean(filter.cluster));
}

function summary(rows, total, more, filter) {
  // Counts know neither keys nor clusters.
  const of = filter.key || filter.cluster ? (more ? " and more" : "") : total > rows ? ` of ${total.toLocaleString("en")}` : "";
  return `${plural(rows, "discrepancy", "discrepancies")}${of}, newest first`;
}

function empty({ status, ...others }) {
  if (Object.values(others).some(Boolean)) return "Nothing matches these filters.";
  if (status === "open") return "Nothing open: the records agree.";
  return status ? `Nothing is ${status}.` : "No discrepancy was ever raised: the records agree.";
}

function drawnFilters(filter, sum) {
  const key = byId("list-filter-key");
  if (document.activeElement !== key) key.value = filter.key;
  const box = byId("severities");
  if (!box.children.length) box.append(...SEVERITIES.map(tile));
  SEVERITIES.forEach((severity, place) => {
    const one = box.children[place];
    one.setAttribute("aria-pressed", String(filter.severity === severity));
    one.querySelector(".count").textContent = sum({ ...filter, severity }).toLocaleString("en");
  });
}

function tile(severity) {
  const press = (event) => view.choose({ severity: event.currentTarget.getAttribute("aria-pressed") === "true" ? "" : severity });
  return h("button", { type: "button", class: `tile severity-${severity}`, onclick: press }, h("span", { class: "count" }), h("span", {}, severity));
}

const searchKey = () => view.choose({ key: byId("list-filter-key").value.trim() });
byId("list-filters").addEventListener("submit", searchKey);
byId("list-filter-key").addEventListener("search", searchKey);
byId("list-filter-clear").addEventListener("click", () => {
  byId("list-filter-key").value = "";
});

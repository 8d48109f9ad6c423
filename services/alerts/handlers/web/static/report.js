// A run's report, drawn from its JSON: the verdict first, then per rule what agreed and where the gap went.

import { file, get } from "./api.js";
import { byId, h, notice, show } from "./dom.js";
import { amount, chip, dateTime, isZero, keyText, minus, money, plural, words } from "./format.js";
import { periodText } from "./runs.js";
import { bridge } from "./bridge.js";

const REFRESH_MS = 5_000;
const CHANGES_SHOWN_MAX = 20;
const AGES = ["0-1", "2-7", "8-30", "30+"];
const VERDICTS = {
  complete: "Everything of the period is stored and every difference is explained. These figures are final.",
  provisional: "The period is not over, or records are still on their way. These figures will change.",
  incomplete: "The causes do not add up to the gap: money is missing that no discrepancy explains.",
};

let id = null;
let timer = null;
let drawn = "";

export function enter(wanted) {
  leave();
  id = wanted;
  drawn = "";
  byId("report").replaceChildren();
  show(byId("report-loading"));
  load();
}

export function leave() {
  clearTimeout(timer);
  id = null;
}

export function reset() {
  leave();
  drawn = "";
  byId("report").replaceChildren();
  show(byId("report-error"), false);
}

async function load() {
  clearTimeout(timer);
  const wanted = id;
  let again = true;
  try {
    const found = await get(`/v1/runs/${encodeURIComponent(wanted)}/report`);
    if (wanted !== id) return;
    again = found.run.completed_at === null;
    show(byId("report-error"), false);
    draw(found);
  } catch (error) {
    if (wanted !== id) return;
    again = error.status !== 404 && error.status !== 403;
    const title = error.status === 409 ? "The report is not there yet" : "The report could not be loaded";
    notice(byId("report-error"), `${title}: ${error.message}`, again ? load : null);
  } finally {
    if (wanted === id) {
      show(byId("report-loading"), false);
      if (again) timer = setTimeout(() => (document.hidden ? (timer = setTimeout(load, REFRESH_MS)) : load()), REFRESH_MS);
    }
  }
}

function draw(found) {
  const text = JSON.stringify(found);
  if (text === drawn) return;
  drawn = text;
  const report = found.reportJson;
  document.title = `Reconciliation ${periodText(report.period)} – tieout`;
  byId("report").replaceChildren(
    top(found),
    totals(report.reports),
    ...Object.entries(report.reports).map(([name, one]) => rule(name, one)),
    ...notReconciled(report.not_reconciled),
  );
}

function top({ run, reportJson: report, reportMarkdown }) {
  const name = `reconciliation-${report.org}-${run.pack}-${periodText(report.period).replace(/ – /, "_").replace(/[:+]/g, "")}`;
  const address = `/v1/runs/${encodeURIComponent(run.id)}/report`;
  const feedback = h("p", { class: "hint", role: "status" });
  const fetched = (format, then) => async () => {
    feedback.textContent = "One moment…";
    try {
      then(await file(address, { format }));
      feedback.textContent = "";
    } catch (error) {
      feedback.textContent = `That did not work: ${error.message}`;
    }
  };
  return h("header", {},
    h("h1", {}, `Reconciliation ${periodText(report.period)}`),
    h("div", { class: `verdict verdict-${report.verdict}` }, h("strong", {}, words(report.verdict)), h("p", {}, VERDICTS[report.verdict] ?? "")),
    h("p", { class: "hint" }, `${report.org}, ${run.pack}, ${report.period.start} to before ${report.period.end} (${report.period.zone}). Figures as of ${dateTime(report.at)}. Made by ${run.requested_by}${run.duration_ms === null ? "" : ` in ${(run.duration_ms / 1000).toFixed(1)} s`}.`),
    h("p", { class: "buttons no-print" },
      h("button", { type: "button", class: "primary", onclick: fetched("html", open) }, "Open to print"),
      h("button", { type: "button", onclick: fetched("csv", (content) => save(`${name}-items.csv`, content)) }, "Save items as CSV"),
      h("button", { type: "button", onclick: fetched("html", (content) => save(`${name}.html`, content)) }, "Save as HTML"),
      h("button", { type: "button", onclick: () => save(`${name}.md`, new Blob([reportMarkdown], { type: "text/markdown" })) }, "Save as Markdown"),
      h("button", { type: "button", onclick: () => save(`${name}.json`, new Blob([JSON.stringify(report, null, 2)], { type: "application/json" })) }, "Save as JSON")),
    feedback);
}

/** The report's own page, in a tab of its own; this page's policy allows its style, and nothing else of it. */
function open(content) {
  const address = URL.createObjectURL(content);
  const link = h("a", { href: address, target: "_blank", rel: "noopener" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), REFRESH_MS * 12);
}

function save(name, content) {
  const address = URL.createObjectURL(content);
  const link = h("a", { href: address, download: name });
  link.click();
  URL.revokeObjectURL(address);
}

const titleOf = (name) => words(name.split(".").pop());

function currenciesOf(one) {
  const sides = Object.values(one.totals);
  return [...new Set([...sides.flatMap((side) => Object.keys(side)), ...Object.keys(one.gaps)])].sort();
}

/** Both sides' totals and what lies between them, before anything else. */
function totals(reports) {
  const rows = Object.entries(reports).flatMap(([name, one]) => {
    const sides = Object.entries(one.totals);
    return sides.length < 2 ? [] : currenciesOf(one).map((currency) => totalsRow(name, currency, sides[0], sides[sides.length - 1]));
  });
  if (!rows.length) return h("p", { class: "hint" }, "Nothing was recorded in this period.");
  return h("section", { class: "rule" }, h("h2", {}, "Totals"),
    h("div", { class: "scroll" }, h("table", { class: "totals" },
      h("thead", {}, h("tr", {}, [["Records", ""], ["Expected", "amount"], ["Actual", "amount"], ["Difference", "amount"]]
        .map(([label, kind]) => h("th", { scope: "col", class: kind }, label)))),
      h("tbody", {}, rows))));
}

function totalsRow(name, currency, [expected, first], [actual, last]) {
  const side = (of, total) => h("td", { class: "amount" }, total ? amount(total.amount) : "–",
    h("span", { class: "hint" }, `${of}, ${(total?.count ?? 0).toLocaleString("en")}`));
  const gap = minus(last[currency]?.amount ?? "0", first[currency]?.amount ?? "0");
  return h("tr", {}, h("td", {}, titleOf(name), " ", h("span", { class: "currency" }, currency)), side(expected, first[currency]), side(actual, last[currency]),
    h("td", { class: "amount" }, isZero(gap) ? "0" : h("strong", {}, amount(gap, true))));
}

function rule(name, one) {
  return h("section", { class: "rule" },
    h("h2", {}, titleOf(name), " ", h("span", { class: "hint" }, name), " ", chip("verdict", one.verdict)),
    figures(one), bridges(one), openItems(one), topOpen(one), changes(one.prior_period));
}

function figures({ items, matched_percent: percent }) {
  const values = Object.entries(percent.value).filter(([, value]) => value !== null);
  return h("div", { class: "figures" },
    percent.count === null ? null : h("div", { class: "figure main" }, h("strong", {}, `${percent.count} %`), h("span", {}, "of items matched")),
    values.map(([currency, value]) => h("div", { class: "figure" }, h("strong", {}, `${value} %`), h("span", {}, `of ${currency} value`))),
    h("div", { class: "figure wide" },
      h("strong", {}, plural(items.total, "item")),
      h("span", {}, `${items.matched.toLocaleString("en")} matched, ${items.discrepant.toLocaleString("en")} with discrepancies, ${items.pending.toLocaleString("en")} pending`)));
}

function bridges(one) {
  const sides = Object.keys(one.totals);
  const currencies = currenciesOf(one);
  if (!currencies.length || sides.length < 2) return h("p", { class: "hint" }, "No records in this period.");
  const open = currencies.filter((currency) => Object.keys(one.gaps[currency] ?? {}).length || !isZero(one.residual[currency]));
  if (!open.length) return h("p", { class: "hint" }, "Both sides have the same totals.");
  return h("div", { class: "bridges" }, open.map((currency) => bridge(currency, sides, one)));
}

function openItems({ open, open_amounts: amounts }) {
  const rows = Object.entries(open).flatMap(([currency, types]) => Object.entries(types).map(([type, row]) => [currency, type, row]));
  if (!rows.length) return h("p", { class: "hint" }, "No discrepancy was open in this period.");
  const number = (label, value, lead = "") => h("td", { role: "cell", "data-label": label, class: "amount" }, lead + value.toLocaleString("en"));
  return h("div", { class: "open" }, h("h3", {}, "Open discrepancies"),
    h("table", { role: "table", class: "open-items" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, [["Type", ""], ["Opening", "amount"], ["+ new", "amount"], ["− cleared", "amount"], ["= closing", "amount"], ...AGES.map((age) => [`${age} days`, "amount"]), ["Amount open", "amount"]]
        .map(([label, kind]) => h("th", { role: "columnheader", scope: "col", class: kind }, label)))),
      h("tbody", { role: "rowgroup" }, rows.map(([currency, type, row]) => h("tr", { role: "row" },
        h("td", { role: "cell", "data-label": "Type" }, words(type), h("span", { class: "currency" }, ` ${currency}`)),
        number("Opening", row.opening), number("+ new", row.new), number("− cleared", row.cleared),
        h("td", { role: "cell", "data-label": "= closing", class: "amount" }, h("strong", {}, row.closing.toLocaleString("en"))),
        AGES.map((age) => number(`${age} days`, row.ageing[age])),
        h("td", { role: "cell", "data-label": "Amount open", class: "amount" }, money(amounts[currency]?.[type] ?? null, currency)))))));
}

function topOpen({ top_open: list }) {
  if (!list.length) return null;
  return h("div", { class: "top-open" }, h("h3", {}, "To look at first"), h("ol", {}, list.map((one) =>
    h("li", {},
      h("p", {}, chip("severity", one.severity), " ", h("a", { href: `#/discrepancies/${encodeURIComponent(one.id)}`, class: "key" }, keyText(one.key)),
        ` ${words(one.type)} `, one.difference === null ? null : h("span", { class: "amount" }, money(one.difference, one.currency, true)),
        one.resolved_since ? [" ", chip("state", "resolved", "resolved since")] : null),
      h("p", { class: "quote" }, one.explanation)))));
}

function changes(list) {
  if (!list.length) return null;
  const shown = list.slice(0, CHANGES_SHOWN_MAX);
  return h("div", { class: "changes" }, h("h3", {}, "Changed since in earlier, completed periods"),
    h("ul", {}, shown.map((one) => h("li", {}, `${one.period}, ${keyText(one.key)}: ${one.was ?? "not there"} → ${one.now ?? "not there"}`,
      Object.entries(one.gap_change).map(([currency, change]) => `, gap ${money(change, currency, true)}`).join("")))),
    list.length > shown.length ? h("p", { class: "hint" }, `and ${list.length - shown.length} more: see the JSON.`) : null);
}

function notReconciled(list) {
  if (!list?.length) return [];
  return [h("section", { class: "rule" }, h("h2", {}, "Not reconciled"), h("p", { class: "hint" }, "Events that no rule selects: nobody compares them."),
    h("ul", {}, list.map((one) => h("li", {}, `${one.count.toLocaleString("en")} × ${one.type} from ${one.source}`))))];
}

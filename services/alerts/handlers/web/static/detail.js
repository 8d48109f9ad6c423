// One discrepancy: both sides' evidence, what happened to it, and what a person can do with it.

import { get, patch, post } from "./api.js";
import { byId, h, notice, options, show } from "./dom.js";
import { ageElement, amount, chip, keyText, money, timeElement, words } from "./format.js";
import { session } from "./session.js";

const REFRESH_MS = 5_000;
const FORMS = ["assign", "note", "adjust", "resolve"];
const DIFFERING_FIELD = { AmountMismatch: "amount", CurrencyMismatch: "currency", StatusMismatch: "status" };
const ENGINE = "engine"; // the actor of what the matcher's results bring about
const FIELDS = [
  ["amount", "Amount"], ["currency", "Currency"], ["status", "Status"], ["occurred_at", "Occurred"],
  ["count", "Records"], ["record", "Record"], ["id", "Event"],
];
const ACTION_WORDS = {
  acknowledge: "acknowledged it", assign: "assigned it", note: "wrote a note", resolve: "resolved it",
  engine_resolve: "closed it, since it is true no more", reopen: "reopened it, since it changed",
};

const dialog = byId("detail");
let id = null;
let body = null;
let text = "";
let timer = null;
let busy = false;
let onChanged = () => {};
let onClosed = () => {};

export function whenChanged(callback) {
  onChanged = callback;
}

export function whenClosed(callback) {
  onClosed = callback;
}

export function open(wanted) {
  if (wanted === id && dialog.open) return;
  id = wanted;
  body = null;
  text = "";
  byId("detail-facts").replaceChildren();
  byId("detail-history").replaceChildren();
  byId("detail-title").textContent = "Discrepancy";
  for (const one of ["detail-actions", "detail-error", "action-feedback"]) show(byId(one), false);
  openForm(null);
  for (const form of FORMS) byId(`form-${form}`).reset();
  show(byId("detail-loading"));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  byId("detail-title").focus();
  load();
}

export function close() {
  clearTimeout(timer);
  id = null;
  if (dialog.open) dialog.close();
}

async function load() {
  clearTimeout(timer);
  const wanted = id;
  try {
    const found = await get(`/v1/discrepancies/${encodeURIComponent(wanted)}`);
    if (wanted !== id) return;
    show(byId("detail-error"), false);
    draw(found);
  } catch (error) {
    if (wanted !== id) return;
    if (error.status === 404) notice(byId("detail-error"), "There is no such discrepancy in this organisation. The link may be of another one, or the id is not whole.");
    else notice(byId("detail-error"), `It could not be loaded: ${error.message}`, load);
  } finally {
    if (wanted === id) {
      show(byId("detail-loading"), false);
      timer = setTimeout(tick, REFRESH_MS);
    }
  }
}

function tick() {
  if (document.hidden || busy || !body) timer = setTimeout(tick, REFRESH_MS);
  else load();
}

function draw(found) {
  body = found;
  const now = JSON.stringify(found);
  // Unchanged parts are left alone, so that marked text stays marked.
  if (now === text) return;
  text = now;
  byId("detail-title").textContent = keyText(found.key);
  document.title = `${keyText(found.key)} – tieout`;
  byId("detail-facts").replaceChildren(head(found), explanation(found), sides(found), particulars(found));
  byId("detail-history").replaceChildren(past(found));
  drawActions(found);
}

function head(found) {
  return h("p", { class: "chips" },
    chip("severity", found.severity), h("strong", {}, words(found.type)),
    found.shadow ? chip("shadow", "shadow") : null,
    h("span", { class: "hint" }, "state ", chip("state", found.state)), h("span", { class: "hint" }, "status ", chip("status", found.status)),
    h("span", { class: "hint" }, "raised ", ageElement(found.raised_at), found.assignee ? `, with ${found.assignee}` : ""));
}

function explanation(found) {
  return h("div", { class: "said" },
    h("p", { class: "sentence" }, found.explanation),
    found.near_miss ? h("p", { class: "near-miss" }, found.near_miss.sentence, " ",
      h("a", { href: `#/discrepancies/${encodeURIComponent(found.near_miss.discrepancy)}` }, "Open the other one")) : null,
    found.cluster ? h("p", { class: "cluster" }, found.cluster.sentence, " ",
      h("a", { href: `#/discrepancies?status=&cluster=${encodeURIComponent(found.cluster.id)}` }, "Show them all")) : null,
    found.difference === null ? null
      : h("p", { class: "difference" }, h("span", { class: "hint" }, "Difference "), money(found.difference, found.currency, true)));
}

function sides(found) {
  const field = DIFFERING_FIELD[found.type];
  const all = Object.entries(found.sides);
  const differs = field && new Set(all.map(([, side]) => side?.[field] ?? null)).size > 1;
  if (!all.length) return h("p", { class: "hint" }, "No evidence is stored for its sides.");
  return h("div", { class: "sides" }, all.map(([name, side]) => oneSide(found, name, side, differs ? field : null)));
}

function oneSide(found, name, side, field) {
  const title = h("h3", {}, name, side?.source ? h("span", { class: "hint" }, ` ${side.source}`) : null);
  if (!side) return h("section", { class: "side absent" }, title, h("p", { class: "missing" }, h("mark", {}, "No record")));
  const rows = FIELDS.filter(([key]) => side[key] !== null && side[key] !== undefined).map(([key, label]) => {
    const value = key === "occurred_at" ? timeElement(side[key]) : key === "amount" ? amount(side[key]) : String(side[key]);
    const differing = key === field || (key === "record" && found.duplicate !== null && found.duplicate === side.record);
    return h("div", { class: differing ? "differs" : null }, h("dt", {}, label), h("dd", {}, differing ? h("mark", {}, value) : value));
  });
  return h("section", { class: "side" }, title, h("dl", {}, rows),
    records("Records", side.records, side.count, found.duplicate), records("Adjustments", side.adjustments));
}

function records(label, list, count = null, duplicate = null) {
  if (!list?.length) return null;
  const rest = count !== null && count > list.length ? ` (${list.length} of ${count})` : "";
  return h("div", { class: "records" }, h("h4", {}, label + rest),
    h("ul", {}, list.map((one) => h("li", {},
      h("span", {}, one.record === duplicate ? h("mark", {}, one.record) : one.record, " ", h("span", { class: "hint" }, one.status ?? "")),
      h("span", { class: "amount" }, money(one.amount, one.currency))))));
}

/** What one side says: money, or the status or currency that differs; a dash where it says nothing and the other does. */
function said(found, text) {
  if (found.expected === null && found.actual === null) return null;
  return found.difference === null ? amount(text) : money(text, found.currency);
}

function particulars(found) {
  const rows = [
    ["Expected", said(found, found.expected)], ["Actual", said(found, found.actual)],
    ["Extra record", found.duplicate], ["Account", found.account], ["Rule", found.rule],
    ["Raised", timeElement(found.raised_at)],
    ["Resolved", found.resolved_at && [timeElement(found.resolved_at), found.resolution ? `, ${words(found.resolution).toLowerCase()}` : ""]],
    ["Resolved as", found.status === "resolved" && found.reason ? words(found.reason) : null],
    ["Reopened", found.reopened ? `${found.reopened} ×` : null], ["Id", found.id],
  ].filter(([, value]) => value);
  return h("dl", { class: "particulars" }, rows.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

function past(found) {
  const events = [
    ...found.history.map((one) => ({ at: one.log_time, line: revisionLine(one) })),
    // The log's line of an adjustment tells less than the entry itself.
    ...found.actions.filter((one) => one.action !== "adjust").map((one) => ({ at: one.at, line: actionLine(one) })),
    ...found.adjustments.map((one) => ({ at: one.created_at, line: adjustmentLine(one) })),
  ].sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
  return h("section", { class: "past" }, h("h3", {}, "What happened, latest first"),
    h("ol", {}, events.map(({ at, line }) => h("li", {}, h("p", { class: "hint" }, timeElement(at)), line))));
}

function revisionLine(one) {
  const why = one.resolution ? `: ${words(one.resolution).toLowerCase()}` : "";
  return h("div", { class: "by-matcher" },
    h("p", {}, h("strong", {}, "Matcher "), chip("state", one.state), why, h("span", { class: "hint" }, ` revision ${one.revision}`),
      one.difference === null ? null : h("span", { class: "amount" }, money(one.difference, one.currency, true))),
    h("p", { class: "quote" }, one.explanation));
}

function actionLine(one) {
  const reason = one.reason && words(one.reason).toLowerCase();
  const extra = [one.assignee && `to ${one.assignee}`, reason && (one.actor === ENGINE ? `(${reason})` : `as ${reason}`)].filter(Boolean).join(", ");
  return h("div", {},
    h("p", {}, h("strong", {}, one.actor), ` ${ACTION_WORDS[one.action] ?? one.action}${extra ? ` ${extra}` : ""}`,
      one.from_status !== one.to_status ? [" ", chip("status", one.from_status), " → ", chip("status", one.to_status)] : null),
    one.notes ? h("p", { class: "quote" }, one.notes) : null);
}

function adjustmentLine(one) {
  return h("div", {},
    h("p", {}, h("strong", {}, one.posted_by), " posted an adjustment of ", h("strong", { class: "posted" }, money(one.amount, one.currency, true)), ` to ${one.source}: ${one.reason}`),
    one.notes ? h("p", { class: "quote" }, one.notes) : null);
}

function drawActions(found) {
  show(byId("detail-actions"));
  show(byId("action-readonly"), !session.mayTriage);
  show(byId("action-buttons"), session.mayTriage);
  byId("action-readonly").textContent = `Your key (${session.role}) may look, but not act. Triage needs a key with the role owner or manager.`;
  byId("act-acknowledge").disabled = busy || found.status !== "open";
  byId("act-assign").disabled = byId("act-resolve").disabled = found.status === "resolved";
  if (found.status === "resolved") for (const name of ["assign", "resolve"]) if (!byId(`form-${name}`).hidden) openForm(null);
}

function openForm(name) {
  cancelConfirm();
  for (const form of FORMS) {
    show(byId(`form-${form}`), form === name);
    byId(`act-${form}`).setAttribute("aria-expanded", String(form === name));
  }
  if (name) byId(`form-${name}`).querySelector("input, select, textarea").focus();
}

async function openAdjustment() {
  const known = Object.values(body.sides).map((side) => side?.source).filter(Boolean);
  options(byId("adjust-source"), [...new Set(known)]);
  byId("adjust-currency").value ||= body.currency ?? "";
  const [first] = Object.values(body.sides);
  const fits = body.type === "AmountMismatch" && body.difference !== null && first?.source;
  byId("adjust-advice").textContent = fits ? `${money(body.difference, body.currency, true)} on ${first.source} would make the two sides agree.` : "";
  openForm("adjust");
  try {
    const { data } = await get("/v1/sources");
    options(byId("adjust-source"), [...new Set([...known, ...data.map((one) => one.source)])]);
  } catch {
    // The sources of the evidence are there already; the API checks what is sent.
  }
}

let confirmed = null;

function ask(question, yes, action) {
  byId("confirm-text").textContent = question;
  byId("confirm-yes").textContent = yes;
  confirmed = action;
  show(byId("confirm"));
  byId("confirm-yes").focus();
}

function cancelConfirm() {
  confirmed = null;
  show(byId("confirm"), false);
}

function feedback(kind, message) {
  const box = byId("action-feedback");
  box.className = `notice ${kind}`;
  box.setAttribute("role", kind === "error" ? "alert" : "status");
  notice(box, message);
}

/** Send an action; only the service's answer changes what is shown. */
async function act(send, done) {
  if (busy) return;
  busy = true;
  const wanted = id;
  const controls = [...byId("detail-actions").querySelectorAll("button")];
  for (const control of controls) control.disabled = true;
  feedback("wait", "Sending…");
  let kind = "ok";
  let message = done;
  try {
    await send(`/v1/discrepancies/${encodeURIComponent(wanted)}`);
  } catch (error) {
    kind = "error";
    message = refusal(error);
  }
  busy = false;
  for (const control of controls) control.disabled = false;
  if (wanted !== id) return;
  feedback(kind, message);
  cancelConfirm();
  if (kind === "ok") {
    const open = FORMS.find((name) => !byId(`form-${name}`).hidden);
    if (open) byId(`form-${open}`).reset();
    openForm(null);
    byId("detail-title").focus({ preventScroll: true });
  }
  text = ""; // the buttons must be set again, whatever came back
  await load();
  onChanged();
}

function refusal(error) {
  if (error.status === 409) return `Not done: ${error.message}. Its present state is shown now.`;
  if (error.status === 0) return `${error.message} Whether it was done is not known; see "What happened" below before you send it again.`;
  return `Not done: ${error.message}`;
}

const value = (field) => byId(field).value.trim();
const optional = (field) => value(field) || null;

byId("act-acknowledge").addEventListener("click", () => {
  openForm(null);
  act((base) => patch(`${base}/acknowledge`), "Acknowledged.");
});
for (const name of ["assign", "note", "resolve", "adjust"]) {
  byId(`act-${name}`).addEventListener("click", () => {
    show(byId("action-feedback"), false);
    if (!byId(`form-${name}`).hidden) openForm(null);
    else if (name === "adjust") openAdjustment();
    else openForm(name);
  });
}
byId("form-assign").addEventListener("submit", (event) => {
  event.preventDefault();
  const assignee = value("assign-assignee");
  act((base) => patch(`${base}/assign`, { assignee }), `Assigned to ${assignee}.`);
});
byId("form-note").addEventListener("submit", (event) => {
  event.preventDefault();
  act((base) => post(`${base}/notes`, { text: value("note-text") }), "Note added.");
});
byId("form-resolve").addEventListener("submit", (event) => {
  event.preventDefault();
  const reason = value("resolve-reason");
  const said = words(reason).toLowerCase();
  const at = body.difference === null ? "" : ` with a difference of ${money(body.difference, body.currency, true)}`;
  ask(`Resolve ${keyText(body.key)}${at} as “${said}”?`, "Yes, resolve", () =>
    act((base) => patch(`${base}/resolve`, { reason, notes: optional("resolve-notes") }), `Resolved as ${said}.`));
});
byId("form-adjust").addEventListener("submit", (event) => {
  event.preventDefault();
  const entry = {
    source: value("adjust-source"), amount: value("adjust-amount"), currency: value("adjust-currency").toUpperCase(),
    reason: value("adjust-reason"), notes: optional("adjust-notes"),
  };
  ask(`Post ${money(entry.amount, entry.currency, true)} to ${entry.source}? An entry cannot be deleted, only balanced by another one.`, "Yes, post it", () =>
    act((base) => post(`${base}/adjustments`, entry), "Adjustment posted. The matcher takes it up within seconds."));
});
for (const form of FORMS) byId(`form-${form}`).addEventListener("input", cancelConfirm);
byId("confirm-yes").addEventListener("click", () => confirmed?.());
byId("confirm-no").addEventListener("click", cancelConfirm);
byId("detail-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog && !FORMS.some((form) => !byId(`form-${form}`).hidden)) dialog.close();
});
dialog.addEventListener("close", () => {
  const was = id;
  clearTimeout(timer);
  id = null;
  if (was) onClosed(was);
});

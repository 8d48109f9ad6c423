// One dead letter: what is wrong, what to do, the body as it came, and what a person can do with it.

import { get, post } from "./api.js";
import { byId, h, notice, show } from "./dom.js";
import { ageElement, chip, timeElement, words } from "./format.js";
import { session } from "./session.js";

const ACTION_WORDS = { replay: "sent it through again", dismiss: "dismissed it" };

const dialog = byId("letter");
let id = null;
let state = null;
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
  for (const one of ["letter-facts", "letter-history"]) byId(one).replaceChildren();
  for (const one of ["letter-actions", "letter-error", "letter-feedback"]) show(byId(one), false);
  byId("letter-title").textContent = "Dead letter";
  byId("letter-dismiss-form").reset();
  openForm(false);
  show(byId("letter-loading"));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  byId("letter-title").focus();
  load();
}

export function close() {
  id = null;
  if (dialog.open) dialog.close();
}

async function load() {
  const wanted = id;
  try {
    const found = await get(`/v1/dead-letters/${encodeURIComponent(wanted)}`);
    if (wanted !== id) return;
    show(byId("letter-error"), false);
    draw(found);
  } catch (error) {
    if (wanted !== id) return;
    if (error.status === 404) notice(byId("letter-error"), "There is no such dead letter in this organisation. The link may be of another one, or the id is not whole.");
    else notice(byId("letter-error"), `It could not be loaded: ${error.message}`, load);
  } finally {
    if (wanted === id) show(byId("letter-loading"), false);
  }
}

function draw(found) {
  state = found.state;
  const name = found.event ?? "One request";
  byId("letter-title").textContent = name;
  document.title = `${name} – tieout`;
  byId("letter-facts").replaceChildren(head(found), said(found), particulars(found), rawBody(found));
  byId("letter-history").replaceChildren(past(found));
  drawActions();
}

function head(found) {
  return h("p", { class: "chips" },
    h("strong", {}, words(found.reason)), h("span", { class: "hint" }, "state ", chip("letter", found.state)),
    h("span", { class: "hint" }, "received ", ageElement(found.received_at)));
}

function said(found) {
  return h("div", { class: "said" },
    h("p", { class: "sentence" }, found.detail),
    h("p", {}, h("strong", {}, "What to do: "), found.hint));
}

function particulars(found) {
  const place = found.inbox_offset < 0 ? "none: it came from no request" : `partition ${found.inbox_partition}, offset ${found.inbox_offset}`;
  const rows = [
    ["Source", found.source], ["Event", found.event], ["Rule", found.rule],
    ["Received", timeElement(found.received_at)], ["First seen", timeElement(found.first_seen_at)],
    ["Place in inbox", place], ["Id", found.id],
  ].filter(([, value]) => value);
  return h("dl", { class: "particulars" }, rows.map(([label, value]) => h("div", {}, h("dt", {}, label), h("dd", {}, value))));
}

/** Foreign content: a text node in a box, never markup. */
function rawBody(found) {
  if (!found.raw) return h("p", { class: "hint" }, "Its body is not kept here; the topic inbox has it.");
  const size = `${found.raw_bytes.toLocaleString("en")} bytes`;
  const notes = [size, found.raw_encoding === "base64" && "no text, so shown as base64", found.raw_truncated && "only its beginning is kept"].filter(Boolean);
  return h("section", { class: "raw" },
    h("h3", {}, "As it came ", h("span", { class: "hint" }, notes.join(", "))),
    h("pre", { tabindex: "0", "aria-label": "The body as it came" }, found.raw));
}

function past(found) {
  const changes = [...found.changes].reverse().map((one) => h("li", {}, h("p", { class: "hint" }, timeElement(one.at)), change(one)));
  return h("section", { class: "past" }, h("h3", {}, "What happened, latest first"),
    h("ol", {}, changes, h("li", {}, h("p", { class: "hint" }, timeElement(found.first_seen_at)), h("p", { class: "by-matcher" }, "Set aside: ", words(found.reason).toLowerCase()))));
}

function change(one) {
  return h("div", {},
    h("p", {}, h("strong", {}, one.actor), ` ${ACTION_WORDS[one.action] ?? one.action} `, chip("letter", one.from_state), " → ", chip("letter", one.to_state)),
    one.reason ? h("p", { class: "quote" }, one.reason) : null);
}

function drawActions() {
  show(byId("letter-actions"));
  show(byId("letter-readonly"), !session.mayTriage);
  show(byId("letter-buttons"), session.mayTriage);
  byId("letter-readonly").textContent = `Your key (${session.role}) may look, but not act. That needs a key with the role owner or manager.`;
  byId("letter-replay").disabled = busy;
  byId("letter-dismiss").disabled = busy || state === "dismissed";
}

function openForm(visible) {
  show(byId("letter-dismiss-form"), visible);
  byId("letter-dismiss").setAttribute("aria-expanded", String(visible));
  if (visible) byId("letter-dismiss-reason").focus();
}

function feedback(kind, message) {
  const box = byId("letter-feedback");
  box.className = `notice ${kind}`;
  box.setAttribute("role", kind === "error" ? "alert" : "status");
  notice(box, message);
}

/** Send an action; only the service's answer changes what is shown. */
async function act(path, sent, done) {
  if (busy) return;
  busy = true;
  drawActions();
  const wanted = id;
  feedback("wait", "Sending…");
  let outcome = ["ok", done];
  try {
    await post(`/v1/dead-letters/${encodeURIComponent(wanted)}/${path}`, sent);
  } catch (error) {
    outcome = ["error", error.status === 0 ? `${error.message} Whether it was done is not known; see below.` : `Not done: ${error.message}`];
  }
  busy = false;
  if (wanted === id) {
    feedback(...outcome);
    if (outcome[0] === "ok") {
      byId("letter-dismiss-form").reset();
      openForm(false);
      byId("letter-title").focus({ preventScroll: true });
    }
    await load();
  }
  onChanged();
}

byId("letter-replay").addEventListener("click", () => {
  openForm(false);
  act("replay", undefined, "Sent through again. If it still cannot be used, a new dead letter appears within seconds.");
});
byId("letter-dismiss").addEventListener("click", () => {
  show(byId("letter-feedback"), false);
  openForm(byId("letter-dismiss-form").hidden);
});
byId("letter-dismiss-form").addEventListener("submit", (event) => {
  event.preventDefault();
  act("dismiss", { reason: byId("letter-dismiss-reason").value.trim() }, "Dismissed.");
});
byId("letter-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => {
  if (event.target === dialog && byId("letter-dismiss-form").hidden) dialog.close();
});
dialog.addEventListener("close", () => {
  const was = id;
  id = null;
  if (was) onClosed(was);
});

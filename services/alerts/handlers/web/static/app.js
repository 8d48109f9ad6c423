// The page: signing in and out, and which view the address (#/…) shows.

import * as anomalies from "./anomalies.js";
import { get, whenUnauthorized } from "./api.js";
import * as budgets from "./budgets.js";
import * as detail from "./detail.js";
import * as discrepancies from "./discrepancies.js";
import { byId, notice, show } from "./dom.js";
import * as letter from "./letter.js";
import * as letters from "./letters.js";
import * as report from "./report.js";
import * as runs from "./runs.js";
import { forget, keep, looksLikeKey, session } from "./session.js";

const VIEWS = {
  discrepancies: byId("view-discrepancies"), "dead-letters": byId("view-letters"), runs: byId("view-runs"), report: byId("view-report"),
  budgets: byId("view-budgets"), anomalies: byId("view-anomalies"),
};
const TITLES = { discrepancies: "Discrepancies", "dead-letters": "Dead letters", runs: "Runs", budgets: "Budgets", anomalies: "Anomalies" };
const LINKS = { discrepancies: "nav-discrepancies", "dead-letters": "nav-letters", runs: "nav-runs", budgets: "nav-budgets", anomalies: "nav-anomalies" };

const signIn = byId("sign-in");
const keyField = byId("sign-in-key");

function showSignIn(message = null) {
  stopViews();
  for (const dialog of [byId("detail"), byId("letter")]) if (dialog.open) dialog.close();
  show(byId("page"), false);
  show(signIn);
  document.title = "Sign in – tieout";
  keyField.value = "";
  show(byId("sign-in-error"), false);
  if (message) notice(byId("sign-in-error"), message);
  keyField.focus();
}

/** Learn whose key it is and what it may do; throws `ApiError` where it may not even look. */
async function enter() {
  const { data } = await get("/v1/orgs");
  session.org = data[0]?.org ?? null;
  session.zone = data[0]?.zone ?? "UTC";
  session.mayTriage = true;
  session.role = "manager";
  try {
    await get("/billing/reconciliation/runs", { limit: 1 });
  } catch (error) {
    if (error.status !== 403) throw error;
    session.mayTriage = false;
    session.role = error.problem.role ?? "viewer";
  }
  show(signIn, false);
  show(byId("page"));
  byId("who").textContent = [session.org, session.mayTriage ? null : `${session.role}, read only`].filter(Boolean).join(" · ");
  byId("zone").textContent = `Times in ${session.zone}.`;
  route();
}

function refusal(error) {
  if (error.status === 401) return "This key is unknown or revoked. Check that it was pasted whole, or ask an owner for a new one.";
  if (error.status === 403) {
    return `This key has the role ${error.problem.role ?? "of a sender"}, which cannot look at discrepancies. Use a key with the role owner, manager or viewer.`;
  }
  return `${error.message} Nothing is wrong with the key; try again.`;
}

async function submitKey(event) {
  event.preventDefault();
  const text = keyField.value.trim();
  if (!looksLikeKey(text)) {
    notice(byId("sign-in-error"), "An API key looks like tk_ID_SECRET. Paste the whole key, as `tieout keys create` showed it.");
    return;
  }
  const button = byId("sign-in-button");
  button.disabled = true;
  keep(text);
  try {
    await enter();
  } catch (error) {
    forget();
    showSignIn(refusal(error));
  } finally {
    button.disabled = false;
  }
}

async function resume() {
  try {
    await enter();
  } catch (error) {
    if (error.status === 401 || error.status === 403) {
      forget();
      showSignIn(refusal(error));
      return;
    }
    // The service is away, the key is not to blame: keep it and offer another try.
    showSignIn();
    const retry = () => {
      show(byId("sign-in-error"), false);
      resume();
    };
    notice(byId("sign-in-error"), `You are still signed in, but: ${error.message}`, retry);
  }
}

function stopViews() {
  discrepancies.leave();
  runs.leave();
  report.leave();
  budgets.leave();
  detail.close();
  letters.leave();
  letter.close();
  anomalies.leave();
}

function route() {
  if (!session.key || byId("page").hidden) return;
  const [path, search = ""] = location.hash.slice(1).split("?");
  const [, view = "", id = ""] = path.split("/");
  const name = view === "runs" && id ? "report" : view;
  if (!(name in VIEWS)) {
    location.replace("#/discrepancies");
    return;
  }
  for (const [one, section] of Object.entries(VIEWS)) show(section, one === name);
  for (const [one, link] of Object.entries(LINKS)) {
    if (one === view) byId(link).setAttribute("aria-current", "page");
    else byId(link).removeAttribute("aria-current");
  }
  if (name !== "discrepancies") {
    discrepancies.leave();
    detail.close();
  }
  if (name !== "dead-letters") {
    letters.leave();
    letter.close();
  }
  if (name !== "runs") runs.leave();
  if (name !== "report") report.leave();
  if (name !== "budgets") budgets.leave();
  if (name === "discrepancies") {
    discrepancies.enter(id ? null : new URLSearchParams(search));
    if (id) detail.open(decode(id));
    else detail.close();
  }
  if (name === "dead-letters") {
    letters.enter(id ? null : new URLSearchParams(search));
    if (id) letter.open(decode(id));
    else letter.close();
  }
  if (name !== "anomalies") anomalies.leave();
  if (name === "anomalies") anomalies.enter();
  if (name === "runs") runs.enter();
  if (name === "report") report.enter(decode(id));
  if (name === "budgets") budgets.enter();
  if (!id) document.title = `${TITLES[name]} – tieout`;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function signOut(message = null) {
  forget();
  discrepancies.reset();
  runs.reset();
  report.reset();
  budgets.reset();
  letters.reset();
  anomalies.reset();
  showSignIn(message);
}

byId("sign-in-form").addEventListener("submit", submitKey);
byId("sign-out").addEventListener("click", () => signOut());
byId("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address after # belongs to the views
  byId("main").focus();
});
whenUnauthorized((error) => {
  if (!byId("page").hidden) signOut(`You were signed out: ${error.message}.`);
});
window.addEventListener("hashchange", route);
detail.whenChanged(discrepancies.refresh);
detail.whenClosed(() => {
  if (/^#\/discrepancies\/./.test(location.hash)) location.hash = discrepancies.address();
});
letter.whenChanged(letters.refresh);
letter.whenClosed(() => {
  if (/^#\/dead-letters\/./.test(location.hash)) location.hash = letters.address();
});

if (session.key) resume();
else showSignIn();

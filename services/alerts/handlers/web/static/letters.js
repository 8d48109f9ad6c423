// Dead letters: what was accepted and could not be used.

import { get } from "./api.js";
import { h } from "./dom.js";
import { ageElement, chip, plural, words } from "./format.js";
import { list } from "./list.js";

const REFRESH_MS = 10_000; // seldom looked at, and they come seldom

const view = list({
  name: "letters",
  address: "#/dead-letters",
  api: "/v1/dead-letters",
  noFilter: { state: "open", reason: "", source: "", rule: "" },
  choice: { name: "state", values: ["open", "replayed", "dismissed", ""] },
  known: ["reason", "source", "rule"],
  fixed: [],
  refreshMs: REFRESH_MS,
  countsEveryMs: 0,
  follow: () => true,
  counts: async () => (await get("/v1/dead-letter-counts")).data,
  matches: (one, by) => ["state", "reason", "source", "rule"].every((name) => !by[name] || one[name] === by[name]),
  time: (one) => one.received_at,
  cells,
  summary: (rows, total) => `${plural(rows, "dead letter")}${total > rows ? ` of ${total.toLocaleString("en")}` : ""}, received last first`,
  empty,
});

export const { enter, leave, reset, address, refresh } = view;

function cells(one, cell, { address: where }) {
  return [
    cell("Reason", words(one.reason), { class: "type" }),
    cell("Event", h("a", { href: where, class: "key" }, one.event ?? "one request")),
    cell("Source", one.source ?? "–"),
    cell("Received", ageElement(one.received_at), { class: "when" }),
    cell("State", chip("letter", one.state)),
    cell("What is wrong", one.detail, { class: "detail" }),
    cell("What to do", one.hint, { class: "todo" }),
  ];
}

function empty({ state, ...others }) {
  if (Object.values(others).some(Boolean)) return "Nothing matches these filters.";
  if (state === "open") return "No open dead letters: everything that came in was understood, or somebody has dealt with it.";
  return state ? `No dead letter is ${state}.` : "No dead letters: everything that came in was understood.";
}

// How amounts, times and names are written. Amounts stay text: a float could not hold them exactly.

import { h } from "./dom.js";
import { session } from "./session.js";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;

/** "-1234567.50" as "−1,234,567.50"; with `signed`, "+" before what is above zero. */
export function amount(text, signed = false) {
  if (text === null || text === undefined) return "–";
  const parts = /^(-?)(\d+)(\.\d+)?$/.exec(text);
  if (!parts) return text;
  const [, minus, whole, rest = ""] = parts;
  const plus = signed && /[1-9]/.test(text) ? "+" : "";
  return (minus ? "−" : plus) + whole.replace(/\B(?=(\d{3})+$)/g, ",") + rest;
}

export function money(text, currency, signed = false) {
  if (text === null || text === undefined) return "–";
  return `${amount(text, signed)} ${currency ?? ""}`.trim();
}

/** `left` − `right`, exactly: amounts are longer than a float is exact. */
export function minus(left, right) {
  const digits = (text) => (text.split(".")[1] ?? "").length;
  const places = Math.max(digits(left), digits(right));
  const whole = (text) => BigInt(text.replace(".", "") + "0".repeat(places - digits(text)));
  const found = whole(left) - whole(right);
  const text = String(found < 0n ? -found : found).padStart(places + 1, "0");
  return (found < 0n ? "-" : "") + (places ? `${text.slice(0, -places)}.${text.slice(-places)}` : text);
}

export function isZero(text) {
  return !/[1-9]/.test(text ?? "");
}

export function keyText(key) {
  return Array.isArray(key) ? key.join(" · ") : key;
}


/** "AmountMismatch" as "Amount mismatch", "within_tolerance" as "Within tolerance". */
export function words(name) {
  const spaced = name.replace(/_/g, " ").replace(/([a-z])([A-Z])/g, "$1 $2").toLowerCase();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

function zoned(moment, style) {
  return new Intl.DateTimeFormat("en-GB", { timeZone: session.zone, ...style }).format(moment);
}

export function dateTime(text) {
  return zoned(new Date(text), { dateStyle: "medium", timeStyle: "medium" });
}

export function clock(moment) {
  return zoned(moment, { timeStyle: "medium" });
}

export function dayOf(moment) {
  return new Intl.DateTimeFormat("sv-SE", { timeZone: session.zone }).format(moment);
}

export function age(text, now = Date.now()) {
  const ms = Math.max(0, now - Date.parse(text));
  if (ms < MINUTE_MS) return "just now";
  if (ms < HOUR_MS) return `${Math.floor(ms / MINUTE_MS)} min ago`;
  if (ms < DAY_MS) return `${Math.floor(ms / HOUR_MS)} h ago`;
  const days = Math.floor(ms / DAY_MS);
  return days === 1 ? "1 day ago" : `${days} days ago`;
}

/** A time as its age, with the exact time as tooltip. */
export function ageElement(text) {
  return h("time", { datetime: text, title: dateTime(text), class: "age" }, age(text));
}

export function timeElement(text) {
  return h("time", { datetime: text }, dateTime(text));
}

export function chip(kind, value, text = value) {
  return h("span", { class: `chip ${kind}-${value}` }, text);
}

export function plural(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}

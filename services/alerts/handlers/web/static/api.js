// The HTTP API: JSON in and out, errors as RFC 9457 problems.

import { session } from "./session.js";

const TIMEOUT_MS = 30_000; // a run may take 8 s to settle; more than this is a service that hangs

export class ApiError extends Error {
  constructor(status, message, problem = {}) {
    super(message);
    this.status = status;
    this.problem = problem;
  }
}

let onUnauthorized = () => {};

/** Called when a key stopped working. */
export function whenUnauthorized(callback) {
  onUnauthorized = callback;
}

export const get = (path, parameters = {}) => request("GET", path + query(parameters));
/** Every number as the text it has in the answer: a float could not hold it exactly. */
export const getExact = (path, parameters = {}) => request("GET", path + query(parameters), undefined, exactly);
export const getImage = (path, parameters = {}) => request("GET", path + query(parameters), undefined, (response) => response.blob(), "image/svg+xml");
/** A file as it is: for saving, or for a view of its own. */
export const file = (path, parameters = {}) => request("GET", path + query(parameters), undefined, (response) => response.blob(), "*/*");
export const patch = (path, body) => request("PATCH", path, body);
export const post = (path, body) => request("POST", path, body);

// A string, which stays, or a number, which is put into quotes.
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

async function exactly(response) {
  const text = await response.text();
  return JSON.parse(text.replace(STRING_OR_NUMBER, (token) => (token.startsWith('"') ? token : `"${token}"`)));
}

async function request(method, path, body, read = (response) => response.json(), accept = "application/json") {
  const key = session.key;
  const headers = { Accept: accept, Authorization: `Bearer ${key}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await send(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  // An answer that comes after signing out belongs to nobody.
  if (session.key !== key) throw new ApiError(401, "You signed out.");
  if (response.ok) return read(response);
  const error = await failure(response);
  if (error.status === 401) onUnauthorized(error);
  throw error;
}

async function send(path, wish) {
  try {
    return await fetch(path, {
      ...wish,
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    const late = error.name === "TimeoutError";
    throw new ApiError(0, late ? "The service did not answer within 30 seconds." : "The service cannot be reached. Check the connection.");
  }
}

async function failure(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy's own error page: its status must do.
  }
  return new ApiError(response.status, problem.detail || `The service answered ${response.status} ${response.statusText}.`, problem);
}

function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== undefined && value !== "");
  return given.length ? `?${new URLSearchParams(given)}` : "";
}

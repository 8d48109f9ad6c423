// The API key of this tab and what it may do. The key is kept in sessionStorage and sent in a header, nowhere else.

const PLACE = "tieout.key";
const KEY_FORM = /^tk_[A-Za-z0-9]+_[\x21-\x7e]+$/;

export const session = {
  key: sessionStorage.getItem(PLACE),
  org: null,
  zone: "UTC",
  role: null,
  mayTriage: false,
};

export function looksLikeKey(text) {
  return KEY_FORM.test(text);
}

export function keep(key) {
  session.key = key;
  sessionStorage.setItem(PLACE, key);
}

export function forget() {
  sessionStorage.removeItem(PLACE);
  Object.assign(session, { key: null, org: null, zone: "UTC", role: null, mayTriage: false });
}

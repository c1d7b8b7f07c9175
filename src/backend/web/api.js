// The API, for both pages: tokens are renewed when they end, and kept for as long as the tab is open.

const KEY = "tollgate.refresh";
let access = null;
let renewing = null;

export const byId = (id) => document.getElementById(id);

export class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the server said ${status}`);
    this.status = status;
    this.code = problem.code;
  }
}

async function send(method, path, body, token) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  const value = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refused(answer.status, value || {});
  return value;
}

function keep(tokens) {
  access = tokens.access_token;
  sessionStorage.setItem(KEY, tokens.refresh_token);
  return tokens.user;
}

// One renewal at a time: a refresh token is good once.
export function renew() {
  const token = sessionStorage.getItem(KEY);
  if (!token) return Promise.resolve(null);
  renewing ??= send("POST", "/api/auth/refresh", { refresh_token: token })
    .then(keep, (error) => {
      if (error instanceof Refused && error.status === 401) forget();
      throw error;
    })
    .finally(() => { renewing = null; });
  return renewing;
}

export function forget() {
  access = null;
  sessionStorage.removeItem(KEY);
}

export async function api(method, path, body) {
  try {
    return await send(method, path, body, access);
  } catch (error) {
    if (!(error instanceof Refused) || error.code !== "auth_token" || !sessionStorage.getItem(KEY)) throw error;
    await renew();
    return send(method, path, body, access);
  }
}

export const logIn = async (email, password) => keep(await send("POST", "/api/auth/login", { email, password }));
export const signUp = async (email, password) => keep(await send("POST", "/api/auth/signup", { email, password }));

export async function logOut() {
  try { await api("POST", "/api/auth/logout"); } finally { forget(); }
}

export function say(text, bad = false) {
  const message = byId("message");
  message.textContent = text;
  message.classList.toggle("bad", bad);
}

// Runs what a person asked for, and says what came of it if it failed.
export const tried = (work) => async (event) => {
  event?.preventDefault();
  say("");
  try { await work(event); } catch (error) { say(error.message, true); }
};

export function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

export function button(text, work) {
  const made = element("button", text);
  made.type = "button";
  made.className = "quiet";
  made.addEventListener("click", tried(work));
  return made;
}

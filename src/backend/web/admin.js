// Administration: state, collections, records, users.

import { api, button, byId, element, logIn, logOut, forget, renew, say, tried } from "/assets/api.js";

const RULES = ["list", "read", "create", "update", "delete"];
const PER_PAGE = 25;
let collection = null;
let page = 1;
let lastUser = "";
let self = "";

function show(user) {
  byId("entrance").hidden = Boolean(user);
  byId("admin").hidden = byId("logout").hidden = !user;
}

const moment = (ms) => (ms ? new Date(ms).toISOString().replace("T", " ").slice(0, 19) : "-");

async function showState() {
  const state = await api("GET", "/api/status");
  const outbox = state.outbox;
  const told = outbox.bus ? `${outbox.waiting} wait, the oldest for ${Math.round(outbox.age_ms / 1000)} s` : `${outbox.waiting} kept, no bus`;
  const facts = [
    ["version", `${state.version}, schema ${state.schema}`], ["users", state.users], ["collections", state.collections],
    ["records", state.records], ["files", `${state.files}, ${state.file_bytes} bytes`], ["outbox", told],
    ["events told", outbox.sent], ["events lost", outbox.lost], ["keys published", state.keys.published],
    ["next key signs", moment(state.keys.next)],
  ];
  byId("state").replaceChildren(...facts.map(([name, value]) => element("div", null, element("dt", name), element("dd", value))));
}

// A rule where it is shown: choosing another one changes it.
function ruleOf(one, rule) {
  const choice = byId("rule").content.firstElementChild.cloneNode(true);
  choice.name = rule;
  choice.value = one.rules[rule];
  choice.setAttribute("aria-label", `${rule} of ${one.name}`);
  choice.addEventListener("change", tried(async () => {
    const rules = { ...one.rules, [rule]: choice.value };
    try {
      await api("PATCH", `/api/collections/${one.name}`, { rules });
    } catch (error) {
      choice.value = one.rules[rule];
      throw error;
    }
    one.rules = rules;
    say(`The rules of ${one.name} are changed.`);
  }));
  return element("td", null, choice);
}

function remover(question, path, after) {
  const remove = button("Delete", async () => {
    if (!confirm(question)) return;
    await api("DELETE", path);
    await after();
  });
  remove.classList.add("remove");
  return element("td", null, remove);
}

async function showCollections() {
  const { items } = await api("GET", "/api/collections");
  byId("collections").tBodies[0].replaceChildren(...items.map((one) => {
    const gone = async () => {
      if (collection === one.name) byId("records").hidden = true;
      await Promise.all([showState(), showCollections()]);
    };
    const line = element(
      "tr", null,
      element("td", null, button(one.name, async () => { collection = one.name; page = 1; byId("filter").value = ""; await showRecords(); })),
      element("td", one.records),
      ...RULES.map((rule) => ruleOf(one, rule)),
      remover(`Delete ${one.name} and its ${one.records} records?`, `/api/collections/${one.name}`, gone),
    );
    line.dataset.name = one.name;
    return line;
  }));
}

async function showRecords() {
  const base = `/api/collections/${collection}/records`;
  const asked = new URLSearchParams({ page, per_page: PER_PAGE, filter: byId("filter").value });
  const found = await api("GET", `${base}?${asked}`);
  byId("records").hidden = false;
  byId("collection").textContent = collection;
  byId("rows").replaceChildren(...found.items.map((record) => {
    const { id, owner, created, updated, ...fields } = record;
    const remove = button("Delete", async () => {
      if (!confirm(`Delete record ${id}?`)) return;
      await api("DELETE", `${base}/${id}`);
      await showRecords();
    });
    const cells = [element("code", id), element("code", owner), element("code", JSON.stringify(fields)), remove];
    return element("tr", null, ...cells.map((cell) => element("td", null, cell)));
  }));
  const pages = Math.max(1, Math.ceil(found.total / PER_PAGE));
  byId("place").textContent = `page ${page} of ${pages}, ${found.total} records`;
  byId("back").disabled = page <= 1;
  byId("next").disabled = page >= pages;
}

async function showUsers() {
  const { items } = await api("GET", `/api/users?after=${lastUser}`);
  byId("users").append(...items.map((user) => {
    const line = element(
      "tr", null, element("td", user.email), element("td", user.role), element("td", null, element("code", user.id)), element("td", moment(user.created)),
    );
    const gone = async () => {
      line.remove();
      await Promise.all([showState(), showCollections()]);
    };
    const question = `Delete ${user.email}, with all records and files of this account?`;
    line.append(user.id === self ? element("td") : remover(question, `/api/users/${user.id}`, gone));
    line.dataset.id = user.id;
    return line;
  }));
  lastUser = items.at(-1)?.id ?? lastUser;
  byId("more").hidden = items.length < 100;
}

async function enter(user) {
  if (user && user.role !== "admin") {
    forget();
    show(null);
    throw new Error("this account is no administrator's");
  }
  show(user);
  if (!user) return;
  self = user.id;
  byId("users").replaceChildren();
  lastUser = "";
  await Promise.all([showState(), showCollections(), showUsers()]);
}

byId("entrance").addEventListener("submit", tried(async () => enter(await logIn(byId("email").value, byId("password").value))));
byId("add").addEventListener("submit", tried(async () => {
  const form = new FormData(byId("add"));
  const rules = Object.fromEntries(RULES.map((rule) => [rule, form.get(rule)]));
  await api("POST", "/api/collections", { name: form.get("name"), rules });
  byId("name").value = "";
  await Promise.all([showState(), showCollections()]);
}));
byId("find").addEventListener("submit", tried(async () => { page = 1; await showRecords(); }));
byId("back").addEventListener("click", tried(async () => { page -= 1; await showRecords(); }));
byId("next").addEventListener("click", tried(async () => { page += 1; await showRecords(); }));
byId("more").addEventListener("click", tried(showUsers));
byId("logout").addEventListener("click", tried(async () => {
  await logOut();
  show(null);
}));

renew().then(enter).catch((error) => { show(null); say(error.message, true); });

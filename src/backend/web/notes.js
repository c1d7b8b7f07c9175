// Notes: the collection `notes`, whose records are their owner's.

import { api, button, byId, element, logIn, logOut, renew, say, signUp, tried } from "/assets/api.js";

const NOTES = "/api/collections/notes/records";
let page = 0;

function show(user) {
  byId("entrance").hidden = Boolean(user);
  byId("notes").hidden = byId("logout").hidden = !user;
}

function item(note) {
  const remove = button("Remove", async () => {
    await api("DELETE", `${NOTES}/${note.id}`);
    line.remove();
  });
  const line = element("li", null, element("span", note.text), remove);
  return line;
}

async function more() {
  page += 1;
  const found = await api("GET", `${NOTES}?sort=-created&per_page=50&page=${page}`);
  byId("list").append(...found.items.map(item));
  byId("more").hidden = page * found.per_page >= found.total;
}

async function enter(user) {
  show(user);
  if (!user) return;
  page = 0;
  byId("list").replaceChildren();
  await more();
}

const proof = () => [byId("email").value, byId("password").value];

byId("entrance").addEventListener("submit", tried(async () => enter(await logIn(...proof()))));
byId("signup").addEventListener("click", tried(async () => {
  if (byId("entrance").reportValidity()) await enter(await signUp(...proof()));
}));
byId("add").addEventListener("submit", tried(async () => {
  const note = await api("POST", NOTES, { text: byId("text").value });
  byId("text").value = "";
  byId("list").prepend(item(note));
}));
byId("more").addEventListener("click", tried(more));
byId("logout").addEventListener("click", tried(async () => {
  await logOut();
  show(null);
}));

renew().then(enter).catch((error) => { show(null); say(error.message, true); });

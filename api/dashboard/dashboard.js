// Shows the node by its REST API. Everything that is shown is read anew when the event stream says
// that something has changed; without a stream it is read every few seconds.
"use strict";

const element = (id) => document.getElementById(id);
const state = { enclaves: [], chosen: null, open: new Set(), logs: new Map(), events: [], live: false };
const REFRESH_AFTER = 200, REFRESH_AT_MOST_EVERY = 1000, POLL_EVERY = 3000, STREAM_AGAIN = 10000;
const ANSWER_LIMIT = 15000, EVENTS_KEPT = 30, CONSOLE_SIZE = 20000;

// ---- the API ----

class Problem extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `status ${status}`);
    this.status = status;
  }
}

// The token of the page's address admits once; what it is exchanged for is this tab's and this port's.
async function enter() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  try {
    sessionStorage.setItem("token", (await call("/session", "POST", { token })).session);
  } catch (error) {
    tell(error.message);
  }
}

function headers() {
  const token = sessionStorage.getItem("token");
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function call(path, method = "GET", body) {
  const request = { method, headers: headers(), signal: AbortSignal.timeout(ANSWER_LIMIT) };
  if (body !== undefined) {
    request.headers["Content-Type"] = "application/json";
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  const type = response.headers.get("Content-Type") || "";
  const content = type.includes("json") ? await response.json() : await response.text();
  if (!response.ok) throw new Problem(response.status, content);
  return content;
}

async function all(path) {
  const items = [];
  for (let cursor = ""; ;) {
    const page = await call(`${path}?limit=500${cursor && `&cursor=${cursor}`}`);
    items.push(...page.items);
    if (!page.next) return items;
    cursor = page.next;
  }
}

// A verb answers with an operation, which is followed to its end.
async function act(path, method = "POST", body = {}) {
  try {
    let operation = await call(path, method, method === "DELETE" ? undefined : body);
    while (operation.state === "running") {
      await new Promise((resolve) => setTimeout(resolve, 150));
      operation = await call(`/v1/operations/${operation.operation}`);
    }
    if (operation.state === "failed") throw new Error(message_of(operation.error));
    tell("");
  } catch (error) {
    tell(error.message);
  }
  refresh_soon();
}

function message_of(error) {
  return [error.attempted && `cannot ${error.attempted}`, error.cause, error.remedy]
    .filter(Boolean).join("; ");
}

// ---- making elements ----

function make(tag, { text, of = [], on = {}, ...properties } = {}) {
  const out = document.createElement(tag);
  if (text !== undefined) out.textContent = text;
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) out.setAttribute(name, value);
    else out[name] = value;
  }
  for (const [name, handler] of Object.entries(on)) out.addEventListener(name, handler);
  out.append(...of.filter(Boolean));
  return out;
}

const span = (className, text) => make("span", { className, text });

// Puts `wanted` in the place of what a list held. An element that says the same stays, with what the
// viewer has selected in it or is about to click; what has the focus keeps it.
function fill(list, wanted, empty) {
  const focused = document.activeElement?.dataset?.key;
  const before = new Map([...list.children].map((one) => [one.says, one]));
  if (wanted.length === 0) wanted = [make("li", { className: "soft", text: empty })];
  for (const one of wanted) one.says = one.outerHTML;
  const now = wanted.map((one) => before.get(one.says) ?? one);
  if (now.length !== list.children.length || now.some((one, i) => one !== list.children[i]))
    list.replaceChildren(...now);
  if (focused && document.activeElement?.dataset?.key !== focused)
    list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

// Screen readers announce what is written, so only changes are.
function say(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit + 1 < units.length) {
    count /= 1024;
    unit += 1;
  }
  return `${Number.isInteger(count) ? count : count.toFixed(1)} ${units[unit]}`;
}

function age(ns) {
  const seconds = Math.max(0, Date.now() / 1000 - ns / 1e9);
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 86400 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} d`;
}

function tell(text) {
  say("problem", text);
  element("problem").hidden = text === "";
}

// ---- what is shown ----

const name_of = (handle) => state.enclaves.find((one) => one.handle === handle)?.id ?? "host";

function place(record) {
  return record.root ? `?root=${encodeURIComponent(record.root)}` : "";
}

function path_of(enclave, verb = "") {
  return `/v1/enclaves/${encodeURIComponent(enclave.id)}${verb && `/${verb}`}${place(enclave)}`;
}

// Of another user's enclave the root is not told, and without it a verb would be about an enclave of
// the viewer's own that has the same id.
const may_act = (enclave) => Boolean(enclave?.root);

const ended = (enclave) => enclave.state === "stopped" || enclave.state === "crashed";

function show_topology(text) {
  const drawing = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
  if (drawing.tagName !== "svg") return;
  element("topology").replaceChildren(document.importNode(drawing, true));
  for (const shape of element("topology").querySelectorAll("[data-enclave]")) {
    shape.addEventListener("click", () => choose(shape.dataset.enclave, true));
    shape.classList.toggle("chosen", shape.dataset.enclave === state.chosen);
  }
}

function enclave_card(enclave, number) {
  const running = enclave.state === "running", paused = enclave.state === "paused";
  const open = state.open.has(enclave.handle);
  const button = (key, label, handler, enabled, className = "") => make("button", {
    text: label, className, disabled: !enabled || !may_act(enclave), "data-key": `${enclave.handle}-${key}`,
    "aria-label": `${label} ${enclave.id}`, on: { click: handler },
    ...(key === "console" && { "aria-expanded": String(open) }),
  });
  return make("li", {
    className: `card${enclave.handle === state.chosen ? " chosen" : ""}`,
    "data-enclave": enclave.handle, on: { click: () => choose(enclave.handle) },
    of: [
      make("div", { className: "row", of: [
        span(`swatch owner-${number % 8}`, ""),
        span("name", enclave.id),
        span(`state ${enclave.state}`, enclave.state),
        span("soft", enclave.kind),
        span("soft", enclave.cpus ? `CPU ${enclave.cpus}` : "shared CPUs"),
        span("soft", enclave.memory > 0 ? bytes(enclave.memory) : "no memory limit"),
        span("soft", `user ${enclave.uid}`),
        make("span", { className: "soft age", "data-since": String(enclave.createdNs) }),
        enclave.heartbeat !== undefined && make("span", { className: "soft beat", "data-beat": enclave.handle }),
        enclave.exitStatus !== undefined && span("soft", `status ${enclave.exitStatus}`),
        make("div", { className: "actions", of: [
          button("console", "Console", () => toggle_console(enclave), true),
          button("pause", paused ? "Resume" : "Pause", () => pause(enclave), running || paused),
          button("kill", "Kill", () => kill(enclave), running || paused || enclave.state === "created"),
          button("delete", "Delete", () => remove(enclave), true, "danger"),
        ] }),
      ] }),
      enclave.cause && make("p", { className: "danger", text: enclave.cause }),
      open && make("pre", { className: "console", tabIndex: 0, "data-key": `${enclave.handle}-text`,
        "aria-label": `console of ${enclave.id}`, text: state.logs.get(enclave.handle) ?? "" }),
    ],
  });
}

function show_enclaves() {
  const known = [...state.enclaves].sort((a, b) => (a.handle < b.handle ? -1 : 1));
  const places = element("enclaves").querySelectorAll(".console");
  const scrolled = new Map([...places].map((one) => [one.closest("li").dataset.enclave,
    one.scrollTop + one.clientHeight >= one.scrollHeight - 4 ? Infinity : one.scrollTop]));
  fill(element("enclaves"), known.map(enclave_card), "There are no enclaves.");
  for (const one of element("enclaves").querySelectorAll(".age"))
    one.textContent = `since ${age(Number(one.dataset.since))}`;
  for (const one of element("enclaves").querySelectorAll(".beat")) {
    const enclave = known.find((other) => other.handle === one.dataset.beat);
    one.textContent = `♥ ${Math.floor(enclave.heartbeatAgeNs / 1e9)} s of ${enclave.heartbeat} s`;
    one.title = "age of its last sign of life, and when it would count as crashed";
  }
  for (const one of element("enclaves").querySelectorAll(".console")) {
    const at = scrolled.get(one.closest("li").dataset.enclave) ?? Infinity;
    one.scrollTop = at === Infinity ? one.scrollHeight : at;
  }
}

function show_segments(segments, attachments) {
  fill(element("segments"), segments.map((segment) => {
    const readers = new Map();
    for (const one of attachments.filter((other) => other.segment === segment.handle)) {
      const who = name_of(one.enclave);
      const entry = readers.get(who) ?? { count: 0, writable: false };
      readers.set(who, { count: entry.count + 1, writable: entry.writable || one.writable });
    }
    return make("li", { className: "card row", of: [
      span("chip", name_of(segment.enclave)),
      span("arrow", "→"),
      span("name", segment.name),
      span("soft", bytes(segment.size)),
      segment.snapshotOf && span("soft", "snapshot"),
      segment.persistent && span("soft", "persistent"),
      ...[...readers].flatMap(([who, entry]) => [
        span("arrow", entry.writable ? "↔" : "→"),
        span("chip", entry.count > 1 ? `${who} ×${entry.count}` : who)]),
      readers.size === 0 && span("soft", "nobody has attached it"),
    ] });
  }), "There are no segments.");
}

function show_compositions(compositions, apps) {
  fill(element("compositions"), compositions.map((composition) => {
    const own = apps.filter((app) => app.composition === composition.handle)
      .sort((a, b) => a.firstRank - b.firstRank);
    return make("li", { className: "card row", of: [
      span("name", composition.name),
      span("state running", composition.state),
      make("div", { className: "ranks", title: "ranks of MPI_COMM_UNIVERSE", of: own.map((app) => {
        const last = app.firstRank + app.ranks - 1;
        const part = make("span", {
          text: `${app.name} ${app.firstRank}${last > app.firstRank ? `–${last}` : ""}: ${app.state}`,
          title: `${app.name} in ${name_of(app.enclave)}, ${app.ranks} ranks, ${app.state}`,
        });
        part.style.flexGrow = app.ranks;
        return part;
      }) }),
    ] });
  }), "No composition is running.");
}

function show_services(names) {
  fill(element("services"), names.map((one) => make("li", { className: "row", of: [
    span("name", one.name), span("soft", one.kind), span("chip", name_of(one.enclave)),
    one.scope !== "node" && span("soft", `in its ${one.scope}`),
    one.value !== undefined && make("code", { text: one.value }),
  ] })), "Nothing is published.");
}

function show_events() {
  fill(element("events"), state.events.map((event) => make("li", { of: [
    span("soft", new Date(event.timeNs / 1e6).toLocaleTimeString()),
    make("span", { text: `${event.type} ${event.name ?? event.handle} ${event.kind}` }),
    event.state && span("soft", event.state),
    event.exitStatus !== undefined && span("soft", `status ${event.exitStatus}`),
  ] })), "Nothing has changed since this page was opened.");
}

// ---- reading ----

let pending = null, reading = false, read_at = 0, told_by_reading = false;

function refresh_soon() {
  const wait = Math.max(REFRESH_AFTER, read_at + REFRESH_AT_MOST_EVERY - Date.now());
  pending ??= setTimeout(refresh, wait);
}

async function refresh() {
  pending = null;
  if (reading) return refresh_soon();
  reading = true;
  read_at = Date.now();
  try {
    const [node, enclaves, drawing, segments, attachments, compositions, apps, names] = await Promise.all([
      call("/v1/node"), all("/v1/enclaves"), call("/v1/topology.svg"), all("/v1/segments"),
      all("/v1/attachments"), all("/v1/compositions"), all("/v1/apps"), all("/v1/names")]);
    state.enclaves = enclaves;
    await read_consoles();
    const running = enclaves.filter((one) => one.state === "running").length;
    say("summary", `${node.inventory.name}: ${node.inventory.cores.length} cores, `
      + `CPU ${node.free || "none"} free; ${running} of ${enclaves.length} enclaves running`);
    show_topology(drawing);
    show_enclaves();
    show_segments(segments, attachments);
    show_compositions(compositions, apps);
    show_services(names);
    element("sign-in").hidden = true;
    connection(state.live ? "live" : "reading every few seconds", state.live ? "live" : "");
    if (told_by_reading) tell("");
    told_by_reading = false;
  } catch (error) {
    if (error instanceof Problem && error.status === 401) return sign_in(error);
    connection("hobbesd does not answer", "lost");
    if (error instanceof Problem) tell(error.message);
    told_by_reading = told_by_reading || error instanceof Problem;
  } finally {
    reading = false;
  }
}

async function read_consoles() {
  for (const handle of [...state.open]) {
    const enclave = state.enclaves.find((one) => one.handle === handle);
    if (!enclave) {
      state.open.delete(handle);
      continue;
    }
    try {
      const path = path_of(enclave, "logs");
      const text = await call(`${path}${path.includes("?") ? "&" : "?"}tail=${CONSOLE_SIZE}`);
      state.logs.set(handle, text || "(nothing printed yet)");
    } catch (error) {
      state.logs.set(handle, error.message);
    }
  }
}

// Over TLS a token of the REST API is asked for; a loopback page has had its own in its address.
function sign_in(error) {
  connection("not signed in", "lost");
  if (element("problem").hidden) tell(error.message);
  told_by_reading = true;
  element("sign-in").hidden = location.protocol !== "https:";
}

function connection(text, className) {
  say("connection", text);
  element("connection").className = className;
}

let stop_following = null, follow_now = () => {};

// Signs of life of enclaves are changes, too, of which there is nothing to see.
function is_news(event) {
  if (event.type !== "enclave" || event.kind !== "changed") return true;
  return state.enclaves.find((one) => one.handle === event.handle)?.state !== event.state;
}

// Server-sent events by fetch: an EventSource cannot send a bearer token. A tab that nobody sees
// gives its stream back: a browser has few connections to a host.
async function follow() {
  for (;;) {
    stop_following = new AbortController();
    try {
      if (document.hidden) throw new Error("nobody looks");
      const response = await fetch("/v1/events", { headers: headers(), signal: stop_following.signal });
      if (!response.ok) throw new Problem(response.status, await response.json());
      state.live = true;
      connection("live", "live");
      refresh_soon();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (let part; !(part = await reader.read()).done;) {
        text += part.value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) {
          const data = text.slice(0, end).split("\n").find((line) => line.startsWith("data: "));
          if (!data) continue;
          const event = JSON.parse(data.slice(6));
          if (!is_news(event)) continue;
          state.events = [event, ...state.events].slice(0, EVENTS_KEPT);
          show_events();
          refresh_soon();
        }
      }
    } catch {
      // Told by the connection's state; it is tried again.
    }
    state.live = false;
    await new Promise((resolve) => {
      follow_now = resolve;
      setTimeout(resolve, STREAM_AGAIN);
    });
  }
}

// ---- what the viewer does ----

function chosen_enclave() {
  return state.enclaves.find((one) => one.handle === state.chosen);
}

function choose(handle, scroll = false) {
  state.chosen = handle;
  for (const one of document.querySelectorAll("[data-enclave]"))
    one.classList.toggle("chosen", one.dataset.enclave === handle);
  if (scroll) document.querySelector(`#enclaves [data-enclave="${handle}"]`)?.scrollIntoView({ block: "nearest" });
}

async function toggle_console(enclave) {
  if (!state.open.delete(enclave.handle)) state.open.add(enclave.handle);
  await read_consoles();
  show_enclaves();
}

const pause = (enclave) => act(path_of(enclave, enclave.state === "paused" ? "resume" : "pause"));

async function kill(enclave) {
  if (await confirmed(`Send SIGTERM to the program of ${enclave.id} (user ${enclave.uid})?`, "Kill"))
    await act(path_of(enclave, "kill"), "POST", { signal: "TERM" });
}

async function remove(enclave) {
  const question = ended(enclave) ? `Delete ${enclave.id} (user ${enclave.uid})?`
    : `${enclave.id} (user ${enclave.uid}) is ${enclave.state}. End its processes and delete it?`;
  if (!await confirmed(question, "Delete")) return;
  const path = path_of(enclave);
  await act(`${path}${path.includes("?") ? "&" : "?"}force=true`, "DELETE");
}

function confirmed(question, verb) {
  const dialog = element("confirm");
  if (dialog.open) return Promise.resolve(false);
  element("question").textContent = question;
  element("confirm-yes").textContent = verb;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close",
    () => resolve(dialog.returnValue === "yes"), { once: true }));
}

function set_theme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

function toggle_theme() {
  set_theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
}

function step(by) {
  const cards = [...element("enclaves").querySelectorAll("[data-enclave]")];
  if (cards.length === 0) return;
  const at = cards.findIndex((one) => one.dataset.enclave === state.chosen);
  const next = at < 0 ? (by > 0 ? 0 : cards.length - 1) : Math.min(Math.max(at + by, 0), cards.length - 1);
  choose(cards[next].dataset.enclave, true);
  cards[next].querySelector("button:not(:disabled)")?.focus({ preventScroll: true });
}

const keys = {
  j: () => step(1),
  k: () => step(-1),
  t: toggle_theme,
  "?": () => element("keys").showModal(),
  c: (enclave) => may_act(enclave) && toggle_console(enclave),
  p: (enclave) => may_act(enclave) && ["running", "paused"].includes(enclave.state) && pause(enclave),
  x: (enclave) => may_act(enclave) && !ended(enclave) && kill(enclave),
  d: (enclave) => may_act(enclave) && remove(enclave),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement || document.querySelector("dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.repeat && event.key !== "j" && event.key !== "k") return;  // a key that is held acts once
  keys[event.key]?.(chosen_enclave());
});
element("theme").addEventListener("click", toggle_theme);
element("help").addEventListener("click", () => element("keys").showModal());
element("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = element("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) return tell("That is no token: it has other characters than a token has.");
  sessionStorage.setItem("token", token);
  tell("");
  refresh_soon();
  follow_now();
});

set_theme(localStorage.getItem("theme")
  ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop_following?.abort();
  else follow_now();
});
show_events();
await enter();
refresh();
follow();
// Consoles and ages change without an event.
setInterval(refresh_soon, POLL_EVERY);

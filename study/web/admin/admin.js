// The researcher's page: what it shows comes from admin/api, what it does goes there with the CSRF token.

const main = document.getElementById("main");
const who = document.getElementById("who");
const said = document.getElementById("said");
const LOOK_EVERY_MS = 5000;
const SAID_MS = 10_000;
const DEEDS = {
  launch: "Open to participants",
  pause: "Pause",
  drain: "Drain: ask only what is missing",
  close: "Close for good",
  unblind: "Unblind for good",
};
const ASK_FIRST = {
  close: "Close this study for good? No answer counts from then on.",
  unblind: "Unblind this study? It cannot be taken back, and it is written down.",
};
const MAY = {
  owner: ["launch", "pause", "drain", "close", "unblind"],
  operator: ["launch", "pause", "drain"],
  viewer: [],
};
const POSSIBLE = {
  draft: ["launch"],
  pilot: ["pause", "drain", "close"],
  live: ["pause", "drain", "close"],
  paused: ["launch", "drain", "close"],
  draining: ["pause", "close"],
  closed: ["unblind"],
};

let me = null;
let slug = decodeURIComponent(location.hash.slice(1));
let looking = null;
let forgetting = null;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

/** What went wrong stays until something else is said; what went well gets out of the way. */
function tell(sentence, wrong = false) {
  clearTimeout(forgetting);
  if (sentence && !wrong) forgetting = setTimeout(() => tell(""), SAID_MS);
  said.textContent = sentence;
  said.className = wrong ? "wrong" : "";
}

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  options.headers = { "X-CSRF-Token": me?.csrf ?? "" };
  const reply = await fetch(`admin/api${path}`, options);
  const value = await reply.json();
  if (!reply.ok) throw Object.assign(new Error(value.error), { status: reply.status });
  return value;
}

async function attempt(work, done = "") {
  try {
    await work();
    if (done) tell(done);
  } catch (error) {
    if (error.status === 401) showLogin();
    tell(error.message, true);
  }
}

// ---------------------------------------------------------------------------------------- coming in

function showLogin() {
  me = null;
  clearInterval(looking);
  who.replaceChildren();
  const password = make("input", { type: "password", id: "password", autocomplete: "current-password", required: true });
  const enter = (event) => {
    event.preventDefault();
    attempt(async () => {
      await ask("/login", { password: password.value });
      tell("");
      await start();
    });
  };
  main.replaceChildren(
    make("form", { class: "login", onsubmit: enter }, make("h2", {}, "Sign in"),
      make("label", { for: "password" }, "Password"), make("div", { class: "row" }, password, make("button", {}, "Sign in"))),
  );
}

async function start() {
  me = await ask("/me");
  const leave = () => attempt(async () => { await ask("/logout", {}); showLogin(); });
  who.replaceChildren(`Signed in as ${me.role} `, make("button", { onclick: leave }, "Sign out"));
  await showStudies();
}

// ---------------------------------------------------------------------------------------- all studies

async function showStudies() {
  clearInterval(looking);
  const studies = await ask("/studies");
  if (studies.some((study) => study.slug === slug)) return openStudy(slug);
  const rows = studies.map((study) => make("tr", {},
    make("td", {}, make("a", { href: `#${study.slug}` }, study.slug)), make("td", {}, study.version),
    make("td", {}, study.status), make("td", { class: "number" }, study.sessions.completed ?? 0),
    make("td", { class: "number" }, study.answered_trials)));
  const table = make("table", {}, make("thead", {}, heads("Study", "Version", "Status", "Completed", "Answered trials")),
    make("tbody", {}, ...rows));
  main.replaceChildren(make("section", { "aria-labelledby": "all" }, make("h2", { id: "all" }, "All studies"),
    studies.length ? table : make("p", {}, "There is no study yet.")));
  if (me.role !== "viewer") main.append(newStudy());
}

function newStudy() {
  const definition = make("textarea", { id: "definition", spellcheck: "false" });
  const folders = ["images", "holes", "results"].map((name) => make("input", { id: `folder-${name}`, placeholder: name }));
  const check = () => attempt(async () => {
    const found = await ask("/definition", { definition: definition.value });
    tell(`${found.study}: ${found.protocol}, ${found.methods} methods, ${found.trials} trials, SHA-256 ${found.sha256}`);
  });
  const create = () => attempt(async () => {
    const [images, holes, results] = folders.map((folder) => folder.value);
    tell("Checking and storing the pictures ...");
    const made = await ask("/studies", { definition: definition.value, images, holes, results });
    location.hash = made.slug;
  }, "The study is stored as a draft.");
  const section = make("section", { "aria-labelledby": "new" }, make("h2", { id: "new" }, "Definition"),
    make("label", { for: "definition" }, "A study in YAML"), definition);
  const buttons = make("div", { class: "row" }, make("button", { onclick: check }, "Check"));
  if (me.offers.create && me.role === "owner") {
    for (const folder of folders) section.append(make("label", { for: folder.id }, `Folder of ${folder.placeholder}`), folder);
    buttons.append(make("button", { onclick: create }, "Make a draft of it"));
  } else {
    section.append(make("p", { class: "note" }, "Pictures come in from a terminal: python -m study ingest"));
  }
  section.append(buttons);
  return section;
}

// ---------------------------------------------------------------------------------------- one study

async function openStudy(name) {
  slug = name;
  const parts = ["progress", "actions", "cells", "quality", "results", "keeping", "trail"];
  const room = Object.fromEntries(parts.map((part) => [part, make("section", { id: part, "aria-label": part })]));
  main.replaceChildren(make("p", {}, make("a", { href: "#" }, "All studies")), ...Object.values(room));
  room.results.hidden = me.role === "operator";
  await look(room);
  clearInterval(looking);
  looking = setInterval(() => document.hidden || attempt(() => look(room)), LOOK_EVERY_MS);
}

async function look(room) {
  const found = await ask(`/studies/${slug}`);
  showProgress(room.progress, found);
  showActions(room.actions, found.status);
  showCells(room.cells, found.cells);
  room.quality.hidden = me.role === "viewer" || found.status.status === "draft";
  await lookCloser(room, found);
  showKeeping(room.keeping, found);
  const rows = found.audit.map((entry) => make("tr", {}, make("td", {}, time(entry.at)), make("td", {}, entry.actor),
    make("td", {}, entry.action), make("td", {}, entry.object)));
  fill(room.trail, make("h2", {}, `Audit trail (${found.audit_rows} rows, whole)`), scroll("Audit trail",
    make("table", {}, make("thead", {}, heads("When (UTC)", "Who", "What", "Of")), make("tbody", {}, ...rows))));
}

/** Who may be decided about and what may be seen change with the sessions, but nothing under a hand that works there. */
async function lookCloser(room, found) {
  const state = JSON.stringify([found.status.sessions, found.status.status, found.visibility]);
  for (const [section, show] of [[room.quality, showQuality], [room.results, showResults]]) {
    const busy = section.contains(document.activeElement) || section.querySelector(".analysis");
    if (section.hidden || section.dataset.state === state || (busy && section.dataset.state)) continue;
    await show(section, found);
    section.dataset.state = state;
  }
}

function showProgress(section, found) {
  const { status } = found;
  const arrived = Object.values(status.sessions).reduce((sum, number) => sum + number, 0);
  const last = found.sessions_by_hour.at(-1);
  const alarms = found.alarms.map((sentence) => make("p", { role: "alert" }, `⚠ ${sentence}`));
  fill(section, make("h2", {}, `${status.slug}, version ${status.version}`), ...alarms, facts({
    Status: status.status,
    Arrived: arrived,
    ...Object.fromEntries(Object.entries(status.sessions).map(([state, number]) => [`Sessions ${state.replace("_", " ")}`, number])),
    Consented: found.flow.consented,
    "Found nothing left to ask": found.flow.full,
    "Accepted (paid)": found.flow.accepted,
    "Used (analysed)": found.flow.used,
    "Answered trials": status.answered_trials,
    "Answers per cell": `${status.fewest_per_cell} to ${status.most_per_cell} of ${status.target_per_cell}`,
    "Latest hour": last ? `${last[1]} began after ${time(last[0])} UTC` : "nobody yet",
    Results: found.visibility,
    Definition: status.sha256.slice(0, 12),
  }));
}

function showActions(section, status) {
  const act = (deed) => () => {
    if (ASK_FIRST[deed] && !confirm(ASK_FIRST[deed])) return;
    attempt(async () => {
      await ask(`/studies/${slug}/do/${deed}`, {});
      await openStudy(slug);
    }, `Done: ${DEEDS[deed].toLowerCase()}.`);
  };
  const possible = status.unblinded ? [] : POSSIBLE[status.status];
  const buttons = MAY[me.role].filter((deed) => possible.includes(deed)).map((deed) =>
    make("button", { class: ASK_FIRST[deed] ? "danger" : "", onclick: act(deed) }, DEEDS[deed]));
  const links = [make("a", { href: `admin/api/studies/${slug}/preview`, target: "_blank" }, "Preview"),
    make("a", { href: slug, target: "_blank" }, "Participant's page")];
  if (section.dataset.shown === `${status.status} ${status.unblinded}`) return; // a button must not vanish under a finger
  section.dataset.shown = `${status.status} ${status.unblinded}`;
  fill(section, make("h2", {}, "Run"), make("div", { class: "row" }, ...buttons, ...links));
}

function showCells(section, cells) {
  const body = cells.images.map((image, row) => make("tr", {}, make("th", { scope: "row" }, image),
    ...cells.valid[row].map((valid, column) => {
      const live = cells.live[row][column];
      const share = Math.min(1, (valid + live) / Math.max(1, cells.target));
      const cell = make("td", { title: `${image}: ${cells.columns[column]}` }, live ? `${valid}+${live}` : valid);
      cell.style.background = `hsl(210 45% ${96 - 36 * share}%)`;
      return cell;
    })));
  const head = make("tr", {}, make("th", { scope: "col" }, "Image"),
    ...cells.columns.map((name) => make("th", { scope: "col" }, name)));
  fill(section, make("h2", {}, "Balance"),
    make("p", { class: "note" }, `Valid answers + answers under way, per cell; the target is ${cells.target}.`),
    scroll("Balance of all cells", make("table", { class: "cells" }, make("thead", {}, head), make("tbody", {}, ...body))));
}

function showKeeping(section, found) {
  const backup = () => attempt(async () => { await ask("/backup", {}); }, "A copy was made.");
  const state = found.backup;
  const parts = [make("h2", {}, "Safe keeping")];
  if (state) {
    parts.push(facts({ Copies: state.snapshots, "Newest copy": state.newest_at ? `${time(state.newest_at)} UTC` : "none",
      Journal: `${Math.ceil(state.journal_bytes / 1024)} kB`, Problem: state.problem || "none" }));
  } else {
    parts.push(make("p", { class: "note" }, "No backup folder is set, or the database is a server's."));
  }
  const row = make("div", { class: "row" });
  if (state && me.role !== "viewer") row.append(make("button", { onclick: backup }, "Copy now"));
  if (me.role === "owner" && found.visibility !== "hidden") {
    row.append(make("a", { href: `admin/api/studies/${slug}/export.zip`, download: "" }, "Download the export (ZIP)"));
  }
  if (section.querySelector("button:focus, a:focus")) return;
  fill(section, ...parts, row);
}

async function showResults(section, { status, visibility }) {
  const parts = [make("h2", {}, "Results")];
  if (status.status === "draft") parts.push(make("p", {}, "There are none before the study is launched."));
  else parts.push(...countsOf(await ask(`/studies/${slug}/results`)));
  fill(section, ...parts);
  const { planning, outcomes } = me.offers;
  const offered = planning.map((name) => ["planning", name]);
  if (visibility === "open") offered.push(...outcomes.map((name) => ["outcomes", name]));
  const row = make("div", { class: "row" });
  for (const [kind, name] of offered) row.append(make("button", { onclick: () => attempt(() => analyse(section, kind, name)) }, name));
  section.append(row);
}

function countsOf(found) {
  const parts = [make("p", {}, `${found.votes} answers, ${found.completed} completed sessions.`)];
  if (!found.visible) parts.push(make("p", {}, found.why_hidden));
  if (found.pairs.length) {
    parts.push(table("Pairs", ["Criterion", "First", "Second", "First better", "Second better", "Ties", "Can't tell"],
      found.pairs.map((pair) => [pair.criterion, pair.first, pair.second, pair.first_chosen, pair.second_chosen, pair.ties, pair.cant_tell])));
  }
  if (found.selections.length) {
    parts.push(table("Selections", ["Criterion", "Method", "Chosen", "Of", "%"], found.selections.map((each) =>
      [each.criterion, each.method, each.chosen, each.of, each.of ? (100 * each.chosen / each.of).toFixed(1) : "-"])));
  }
  return parts;
}

async function analyse(section, kind, name) {
  tell(`Computing ${name} ...`);
  const found = await ask(`/studies/${slug}/${kind}/${encodeURIComponent(name)}`);
  section.querySelector(".analysis")?.remove();
  section.append(make("div", { class: "analysis" }, make("h3", {}, found.title), table(found.title, found.columns, found.rows),
    make("p", { class: "note" }, found.note ?? "")));
  tell("");
}

async function showQuality(section) {
  const queue = await ask(`/studies/${slug}/quality`);
  const decide = (body, sentence) => {
    const reason = prompt(sentence);
    if (!reason) return;
    attempt(async () => {
      await ask(`/studies/${slug}/quality`, { ...body, reason });
      await showQuality(section);
    }, "Written down.");
  };
  const rows = queue.map((entry) => {
    const undo = entry.exclusions.map((each) => make("button", {
      onclick: () => decide({ exclusion: each.id }, `Why is "${each.rule}" undone?`),
    }, `Undo ${each.rule} (${each.effect})`));
    const exclude = make("button", { onclick: () => decide({ session: entry.session }, "Why is this session not used?") }, "Exclude");
    const erase = () => {
      if (!confirm(`Erase all that session ${entry.session} answered and did? It cannot be taken back.`)) return;
      attempt(async () => {
        await ask(`/studies/${slug}/erase`, { session: entry.session });
        await showQuality(section);
      }, "Erased.");
    };
    const gone = me.role === "owner" ? [make("button", { class: "danger", onclick: erase }, "Erase")] : [];
    return make("tr", {}, make("td", { title: entry.session }, entry.session.slice(0, 8)), make("td", {}, entry.state.replace("_", " ")),
      make("td", {}, asWord(entry.accept)), make("td", {}, asWord(entry.use)), make("td", {}, entry.broken.join("; ") || "none"),
      make("td", {}, make("div", { class: "row" }, ...(entry.use ? [exclude] : []), ...undo, ...gone)));
  });
  fill(section, make("h2", {}, "Quality"), rows.length ? scroll("Sessions to decide about", make("table", {},
    make("thead", {}, heads("Session", "State", "Paid", "Used", "Broken rules", "Decide")), make("tbody", {}, ...rows)))
    : make("p", {}, "Nobody has come yet."));
}

// ---------------------------------------------------------------------------------------- details

function fill(section, ...children) {
  const scrolled = section.querySelector(".scroll");
  const place = [scrolled?.scrollTop ?? 0, scrolled?.scrollLeft ?? 0];
  section.replaceChildren(...children);
  section.querySelector(".scroll")?.scrollTo(place[1], place[0]);
}

/** Null where there is nothing to say: of a session that answered nothing. */
function asWord(truth) {
  return truth === null ? "–" : truth ? "yes" : "no";
}

function heads(...names) {
  return make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
}

function table(name, columns, rows) {
  const cell = (value) => make("td", typeof value === "number" ? { class: "number" } : {}, value ?? "-");
  return scroll(name, make("table", {}, make("thead", {}, heads(...columns)),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell))))));
}

function scroll(name, child) {
  return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, child);
}

function facts(values) {
  return make("dl", { class: "facts" }, ...Object.entries(values).map(([name, value]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function time(micros) {
  return new Date(micros / 1000).toISOString().slice(0, 16).replace("T", " ");
}

addEventListener("hashchange", () => {
  slug = decodeURIComponent(location.hash.slice(1));
  if (me) attempt(showStudies);
});
attempt(start).then(() => { if (!me) tell(""); });

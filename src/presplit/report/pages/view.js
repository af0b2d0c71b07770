// The page of `presplit view`: what is chosen goes to the planner, and what it says is drawn. Nothing is computed here.
import { byId, bytes, chance, count, make, percent, seconds } from "./view_words.js";
import { drawNet, showPlan, where } from "./view_net.js";
import { apart, drawEnds, drawFacts, drawTimes } from "./view_times.js";

const OTHER = "other …";
const MUCH = 1.5;
let net, wish, best = null, predicted = null, measured = null, running = false;

const lockRun = () => { byId("run").disabled = running || byId("problem").textContent !== ""; };

async function ask(path, value) {
  const given = value === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(value) };
  const response = await fetch(path, given).catch(() => null);
  if (!response) throw new Error("presplit view does not answer any more: start it again");
  const found = await response.json();
  if (!response.ok) throw new Error(found.error ?? `the page failed (${response.status})`);
  return found;
}

// One question at a time: while one is asked only the newest wish waits.
function newest(work) {
  let busy = false, waiting = false;
  return async function go() {
    if (busy) { waiting = true; return; }
    busy = true;
    try {
      do { waiting = false; await work(); } while (waiting);
    } finally { busy = false; }
  };
}

const predict = newest(async () => {
  try {
    const asked = JSON.stringify(wish);
    predicted = await ask("predict", wish);
    tellProblem(null);
    // What does not go together was brought to what does; a newer wish is not overruled by that.
    if (JSON.stringify(wish) === asked) Object.assign(wish, predicted.plan);
    show();
  } catch (error) { tellProblem(error); }
});

// What does not work is said once and short, and what is shown of before is not taken for what is asked now.
function tellProblem(error) {
  byId("problem").textContent = error ? `${short(error.message)}. Nothing is predicted until that is mended: what is shown is of before.` : "";
  byId("shown").inert = Boolean(error);
  byId("brief").classList.toggle("old", Boolean(error));
  byId("chosen").hidden = Boolean(error);
  lockRun();
  for (const field of document.querySelectorAll("#choices input[type=text]")) {
    field.setAttribute("aria-invalid", String(Boolean(error) && !field.hidden && error.message.includes(`'${field.value.trim()}'`)));
  }
}

// An error names all that there is to choose from, which the page has in its lists.
const short = (message) => message.replace(/; there are: .*$/s, ", and it is no list of numbers as the field shows");

const choose = newest(async () => {
  try {
    best = (await ask("choose", wish)).plan;
    byId("chosen").textContent = "";
  } catch (error) {
    best = null;
    byId("chosen").textContent = `No planner's choice: ${error.message}.`;
  }
  byId("choose").disabled = best === null;
  if (predicted) showPlan(wish, best);
});

function changed({ elsewhere = false } = {}) {
  measured = null;
  byId("trial").textContent = "Not run yet as it is now.";
  showPlan(wish, best);
  predict();
  if (elsewhere) choose();
}

function show() {
  const { times } = predicted;
  showPlan(wish, best);
  showChoices();
  byId("said").textContent = `${capital(where(wish.split))}: half of the answers are there within ${seconds(times.p50_s)}, 99 % within ${seconds(times.p99_s)}` +
    (wish.deadline_s ? `, and ${chance(times.in_time)} by the deadline of ${seconds(wish.deadline_s)}.` : ".");
  byId("brief").textContent = `${capital(where(wish.split))}: half ${seconds(times.p50_s)}, 99 % ${seconds(times.p99_s)}` +
    (wish.deadline_s ? `, ${chance(times.in_time)} in time` : "");
  drawTimes(predicted, measured, wish.deadline_s);
  drawFacts(predicted, wish.deadline_s);
  drawEnds(predicted, measured);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

async function run() {
  const asked = JSON.stringify(wish);
  running = true;
  lockRun();
  byId("trial").textContent = "Running: answers are asked for three seconds (the first time the server has to start).";
  try {
    const found = await ask("run", wish);
    if (JSON.stringify(wish) !== asked) return;
    measured = found;
    byId("trial").textContent = toldTrial(found);
    show();
  } catch (error) { byId("trial").textContent = `Not measured: ${error.message}`; } finally {
    running = false;
    lockRun();
  }
}

function toldTrial(found) {
  const notes = found.notes.map((note) => `${capital(note)}.`).join(" ");
  if (!found.answers) return notes;
  const ratio = found.mean_s / predicted.times.mean_s;
  const inTime = found.in_time == null ? "" : ` ${chance(found.in_time)} by the deadline.`;
  return `${found.answers} answers: half within ${seconds(found.p50_s)}, 99 % within ${seconds(found.p99_s)}, ` +
    `mean ${seconds(found.mean_s)}, ${Number(ratio.toPrecision(3))} times the predicted one.${inTime} ${whySlower(ratio, found)}${notes}`;
}

// Where most of the time went that was not predicted, and what makes that so.
function whySlower(ratio, found) {
  if (ratio <= MUCH) return "";
  const [part] = apart(predicted.parts, found.parts).sort((one, other) => other.more - one.more);
  return `Most of the difference, ${seconds(part.more)}, is in "${part.words}": ${part.why}. `;
}

// The plan's controls. A select with numbers of one's own has an entry that opens a field.
function drawChoices() {
  const form = byId("choices");
  form.addEventListener("submit", (event) => event.preventDefault());
  form.append(
    select("codec", "Sent as", [], (value) => { wish.codec = value; changed(); }),
    select("link", "Link", net.links, (value) => { wish.link = value; changed({ elsewhere: true }); }, "up=3M,rtt=40ms"),
    select("device", "Device", net.devices, (value) => { wish.device = value; changed({ elsewhere: true }); }, "macs=2G,memory=512MB"),
    select("server", "Server", net.devices, (value) => { wish.server = value; changed({ elsewhere: true }); }, "macs=50G,memory=16GB"));
  if (net.forms.length > 1) {
    form.append(
      select("form", "Device computes in", net.forms, (value) => { wish.form = value; changed(); }),
      select("server_form", "Server computes in", net.forms, (value) => { wish.server_form = value; changed(); }));
  }
  const deadline = make("input", { id: "deadline", type: "number", min: "0", step: "any", inputmode: "decimal", placeholder: "none" });
  deadline.value = wish.deadline_s ? String(Number((1000 * wish.deadline_s).toPrecision(6))) : "";
  deadline.addEventListener("change", () => {
    const value = Number(deadline.value) / 1000;
    wish.deadline_s = value > 0 ? value : null;
    changed({ elsewhere: true });
  });
  form.append(make("label", { class: "field" }, "Deadline in ms", deadline));
}

function select(id, label, names, chosen, example) {
  const made = make("select", { id });
  const own = example ? make("input", { id: `${id}-own`, type: "text", placeholder: example, "aria-label": `${label}: numbers of your own`, hidden: true }) : null;
  fill(made, own, names, wish[id]);
  made.addEventListener("change", () => {
    if (own) own.hidden = made.value !== OTHER;
    if (made.value !== OTHER) chosen(made.value);
    else own.focus();
  });
  own?.addEventListener("change", () => own.value.trim() && chosen(own.value.trim()));
  return make("label", { class: "field" }, label, made, own);
}

function fill(made, own, names, value) {
  const known = value && !names.includes(value) ? [...names, value] : names;
  const shown = own ? [...known, OTHER] : known;
  if ([...made.options].map((one) => one.value).join() !== shown.join()) {
    made.replaceChildren(...shown.map((name) => make("option", { value: name }, name)));
  }
  if (value) made.value = value;
}

function showChoices() {
  const boundary = net.boundaries[wish.split];
  const codecs = byId("codec"), last = net.segments.length;
  codecs.disabled = wish.split === last;
  const names = Object.keys(boundary.codecs);
  const options = names.map((name) => make("option", { value: name }, `${name}, ${bytes(boundary.codecs[name])}`));
  codecs.replaceChildren(...(wish.split === last ? [make("option", { value: wish.codec }, "nothing is sent")] : options));
  codecs.value = wish.codec;
  for (const id of ["form", "server_form"]) if (byId(id)) byId(id).value = wish[id];
  if (byId("server_form")) byId("server_form").disabled = wish.split === last;
  for (const exit of net.exits) showExit(exit);
}

function drawExits() {
  const where = byId("exits");
  if (!net.exits.length) where.append(make("p", { class: "note" }, "The net has no early exits."));
  for (const exit of net.exits) {
    const box = make("input", { type: "checkbox", id: `exit-${exit.name}` });
    const range = make("input", { type: "range", class: "range", min: 0, max: exit.levels.length - 1, step: 1, id: `sure-${exit.name}`, "aria-label": `How sure exit ${exit.name} must be` });
    range.value = Math.floor(exit.levels.length / 2);
    const set = () => {
      if (box.checked) wish.exits = { ...wish.exits, [exit.name]: exit.levels[Number(range.value)] };
      else wish.exits = Object.fromEntries(Object.entries(wish.exits).filter(([name]) => name !== exit.name));
      if (box.checked && exit.after > wish.split) wish.split = exit.after;
      showExit(exit);
      changed();
    };
    box.addEventListener("change", set);
    range.addEventListener("input", () => { box.checked = true; set(); });
    where.append(make("div", { class: "leave" },
      make("label", {}, box, make("span", {}, make("strong", {}, `Exit ${exit.name}`), ` answers when it is sure`)),
      range, make("output", { for: `exit-${exit.name} sure-${exit.name}`, id: `told-${exit.name}` })));
  }
}

function showExit(exit) {
  const box = byId(`exit-${exit.name}`), range = byId(`sure-${exit.name}`);
  const threshold = wish.exits[exit.name];
  box.checked = threshold !== undefined;
  if (box.checked) range.value = nearest(exit.levels, threshold);
  const level = Number(range.value);
  const sure = `score of ${Number(exit.levels[level].toPrecision(3))} or more: ${percent(exit.sure[level])} of all samples`;
  range.setAttribute("aria-valuetext", sure);
  byId(`told-${exit.name}`).textContent = box.checked ? sure : `off (would take a ${sure}; adds ${seconds(exit.s)} here)`;
}

function nearest(levels, value) {
  const apart = levels.map((one) => Math.abs(one - value));
  return apart.indexOf(Math.min(...apart));
}

function move(split) {
  if (split === wish.split) return;
  // Exits behind the cut cannot answer on the device.
  const kept = net.exits.filter((one) => one.after <= split && one.name in wish.exits);
  wish.split = split;
  wish.exits = Object.fromEntries(kept.map((one) => [one.name, wish.exits[one.name]]));
  changed();
}

// Why what is predicted is longer than the segments together.
function toldHere({ s, segments_s, wake_s, pause_s }) {
  const rest = s > segments_s ? `, of the ${seconds(s)} that the whole net takes; the rest is the call into the engine, which each half of a cut net has` : "";
  const wakes = `Answers come ${seconds(pause_s)} or more apart: waking up after such a pause adds ${seconds(wake_s)} to each half that runs on this machine, ` +
    "and is in what is predicted.";
  return `Together the segments take ${seconds(segments_s)} when they run again and again${rest}. ${wake_s > s / 50 ? wakes : ""}`.trim();
}

// The prediction stays in sight while the cut is dragged, where its place is not.
function keepInSight() {
  const seen = new IntersectionObserver(([one]) => { byId("brief").hidden = one.isIntersecting; }, { rootMargin: "0px 0px -40px 0px" });
  seen.observe(byId("said"));
}

async function begin() {
  net = await ask("net");
  wish = net.begin;
  document.title = `${net.name}, presplit view`;
  byId("name").textContent = net.name;
  byId("what").textContent = `${net.source}: ${count(net.macs)} MACs, ${count(net.weights)} weights, ${net.segments.length} segments, ` +
    `${net.exits.length} early ${net.exits.length === 1 ? "exit" : "exits"}. ${seconds(net.here.s)} for one sample on this machine, one thread, run again and again.`;
  byId("adds").textContent = toldHere(net.here);
  byId("foot").textContent = `Times of segments and operators: ${net.here.engine} on ${net.here.processor}. ` +
    `Other machines are this one's proportions at their speed, codecs and messages as here. Accuracy: ${net.accuracy.what}.`;
  drawNet(net, move);
  keepInSight();
  drawExits();
  drawChoices();
  byId("run").addEventListener("click", run);
  byId("choose").addEventListener("click", () => {
    Object.assign(wish, structuredClone(best));
    changed();
  });
  byId("run").disabled = false;
  await predict();
  await choose();
}

begin().catch((error) => { byId("problem").textContent = error.message; byId("what").textContent = error.message; });

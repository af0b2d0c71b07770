// The live page: one snapshot after another, each of which is all there is to show.
import * as say from "./live_words.js";
import * as charts from "./live_charts.js";
import * as panel from "./live_panel.js";
import { by, facts, legend, make, picture, planRows, set, shareTables, strip } from "./live_parts.js";

const SILENT_MS = 3000;
const FIRST_MS = 1000, MOST_MS = 60000, TRIES = 12; // some ten minutes in all
let last = null, drawn = null, paused = false, heard = 0, isOpen = false, isOver = false, tries = 0;

function state(name, words) {
  const place = by("state");
  place.className = `state ${name}`;
  set(place, words);
  document.body.classList.toggle("gone", name === "gone");
  panel.enable(name !== "gone");
}

function tell() {
  if (isOver) return;
  if (!isOpen) state("gone", heard ? "the process is gone; looking for it" : "connecting");
  else if (performance.now() - heard > SILENT_MS) state("gone", "the process says nothing");
  else if (paused) state("paused", "paused");
  else state("live", "live");
}

const hue = (name) => (say.isGood(name) ? "s1" : "s5");
const words = (rows) => rows.map((row) => ({ ...row, hue: row.name === "server" ? "s2" : hue(row.name) }));
const named = (rows, tone) => rows.map((row) => ({ ...row, words: row.name, hue: tone ?? (row.name.endsWith("server") ? "s2" : "s1") }));

function head(now) {
  const recent = now.times.recent, whole = now.times.whole;
  const found = [
    ["answers a second", say.count(now.per_s)],
    ["answers", say.count(now.answers)],
    ["half within, now", recent.p50_s ? say.seconds(recent.p50_s) : "–"],
    ["99 % within, now", recent.p99_s ? say.seconds(recent.p99_s) : "–"],
    ["99 % within, all", whole.p99_s ? say.seconds(whole.p99_s) : "–"],
  ];
  if (now.kind === "edge") {
    found.push([`later than ${say.seconds(now.deadline_s)}`, say.count(now.missed.whole), now.missed.recent ? "bad" : ""]);
    found.push(["less good than planned", say.count(now.degraded.whole), now.degraded.recent ? "warn" : ""]);
    found.push(["sent for an answer, now", say.bytes(now.sent.recent_bytes)]);
    if (now.energy) found.push(["energy an answer, reckoned", say.joules(now.energy.mean_j)]);
  } else if (now.crew) {
    found.push(["waiting or computed", say.count(now.inside)]);
    found.push(["samples in a run", now.batch.toFixed(1)]);
    found.push(["without an answer", say.count(now.refused.whole), now.refused.recent ? "warn" : ""]);
  }
  facts(by("facts"), found);
}

function minute(now) {
  const isEdge = now.kind === "edge";
  // An edge tells (all, by the server, degraded), a server (all, in full, without an answer).
  const parts = now.seconds.map(([all, one, other]) =>
    isEdge ? [all - one - other, one, other] : [one, all - one - other, other]);
  charts.stacked(by("answers"), parts, isEdge ? ["s1", "s2", "s5"] : ["s2", "s1", "s5"]);
  legend(by("answers-key"), isEdge
    ? [["by the edge", "s1"], ["by the server", "s2"], ["by the edge, less good than planned", "s5"]]
    : [["in full", "s2"], ["by an exit", "s1"], ["without an answer", "s5"]]);
  charts.timeLines(by("times"), [[now.seconds.map((each) => each[3]), "s3"], [now.seconds.map((each) => each[4]), "s6"]], now.deadline_s);
  const key = [["half of the answers within", "s3"], ["99 of 100 within", "s6"]];
  legend(by("times-key"), isEdge ? [...key, ["deadline", "s0"]] : key);
}

function edge(now) {
  const current = now.plans.find((plan) => plan.current) ?? now.plans[0];
  const end = now.boundaries.length - 1;
  by("now").hidden = false;
  const how = { 0: "the server computes all of it", [end]: "the edge computes all of it" }[current.split];
  set(by("cut"), how ? `Now ${how}.` : `Now the edge computes up to ${current.at}, and sends that as ${current.codec}${current.bytes === null ? "" : `, ${say.bytes(current.bytes)}`}.`);
  set(by("planned"), now.planned_for ? `Planned to run ${now.planned_for}.` : "");
  strip(by("strip"), now.boundaries, current);
  alone(now.servers);
  shareTables(by("shares"), [["Who answered", named(now.exits)], ["And why", words(now.whys)]]);
  by("plans").hidden = now.plans.length < 2;
  if (now.plans.length > 1) {
    const left = planRows(by("rows"), now.plans, end);
    set(by("rows-left"), left ? `${left} more rows were not the best so far.` : "");
  }
  const link = now.link;
  facts(by("link"), link ? [
    ["rate up, as seen", say.linkNow(link)[0]],
    ["round trip, as seen", say.linkNow(link)[1]],
    ["the server takes, of what is planned", say.times(link.server_factor)],
    ["this device takes, of what is planned", say.times(link.device_factor)],
  ] : []);
  const servers = now.servers.map((each) => each.asked ? [`${each.address} is asked`] : [`${each.address} is not asked now`, each.why]);
  list(by("servers"), servers.length ? servers : [["No server is asked: the edge is alone."]]);
  facts(by("counts"), Object.entries(now.counts).map(([name, value]) => [name, say.count(value)]));
  shown(now.picture);
}

// What is the matter, where every server is silent.
function alone(servers) {
  const silent = servers.filter((each) => !each.asked && each.silent_s !== null); // not by plan
  const isAlone = silent.length && silent.length === servers.length;
  const since = Math.min(...silent.map((each) => each.silent_s));
  set(by("alone"), isAlone ? `Server not reached for ${say.since(since)}; the edge goes on alone.` : "");
}

function shown(found) {
  by("picture").hidden = !found || !picture(by("pixels"), found);
  if (found) set(by("shown"), `${found.class}, by ${found.where === "edge" ? "the edge" : "the server"} in ${say.seconds(found.elapsed_s)}`);
}

function server(now) {
  shareTables(by("shares"), [["What became of requests", words(now.whys)], ["For which model", named(now.models, "s2")], ["From whom", named(now.clients, "s4")]]);
  const broken = Object.entries(now.broken).map(([path, error]) => `not served: ${path}: ${error}`);
  list(by("servers"), [...Object.entries(now.bundles).map(([key, path]) => `${key} from ${path}`), ...broken].map((line) => [line]));
  facts(by("counts"), Object.entries(now.crew ?? {}).map(([name, value]) => [name, say.count(value)]));
}

// `lines`: a sentence each, and what a program said itself, if it did.
function list(place, lines) {
  const mark = lines.map(([line]) => line).join("\n");
  if (place.dataset.mark === mark) return;
  place.dataset.mark = mark;
  place.replaceChildren(...lines.map(([line, own]) => {
    const item = document.createElement("li");
    item.textContent = line;
    if (own) item.append(make("details", {}, make("summary", {}, "in the program's own words"), make("code", {}, own)));
    if (line.includes("not asked") || line.startsWith("not served")) item.className = "bad";
    return item;
  }));
}

function draw() {
  if (!last || last === drawn || paused || document.hidden) return;
  drawn = last;
  set(by("title"), `${last.name}, live`);
  document.title = `${last.name}, live`;
  set(by("about"), `The ${last.kind}, process ${last.process}, up for ${say.since(last.up_s)}.`);
  head(last);
  minute(last);
  (last.kind === "edge" ? edge : server)(last);
  if (last.panel) panel.show(last.panel, last.link);
  // For whoever measures whether the page keeps up.
  document.body.dataset.lagS = (Date.now() / 1000 - last.at).toFixed(3);
  document.body.dataset.drawn = Number(document.body.dataset.drawn ?? 0) + 1;
}

function listen() {
  const source = new EventSource("events");
  source.onopen = () => { isOpen = true; tries = 0; heard = performance.now(); tell(); };
  // The browser's own retries never end, and each one is an error on its console.
  source.onerror = () => {
    isOpen = false;
    source.close();
    tries += 1;
    if (tries > TRIES) return over("the process is gone; reload to look again");
    setTimeout(listen, Math.min(MOST_MS, FIRST_MS * 2 ** (tries - 1)));
    tell();
  };
  source.onmessage = (event) => {
    heard = performance.now();
    isOpen = true;
    last = JSON.parse(event.data);
    requestAnimationFrame(draw);
    tell();
  };
  source.addEventListener("end", () => { source.close(); over("the process has ended"); });
}

function over(words) {
  isOver = true;
  state("gone", words);
}

by("pause").addEventListener("click", () => {
  paused = !paused;
  by("pause").setAttribute("aria-pressed", String(paused));
  set(by("pause"), paused ? "Go on" : "Pause");
  tell();
  draw();
});
document.addEventListener("visibilitychange", () => requestAnimationFrame(draw));
setInterval(tell, 1000);
panel.start();
listen();

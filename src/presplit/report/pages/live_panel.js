// The demo's panel: what it changes is posted, and what is so is shown, unless a hand is on it.
import * as say from "./live_words.js";
import { by, set } from "./live_parts.js";

const LEAST_BPS = 1e4, STEPS = 20; // a slider's steps in a factor of ten
const HELD_MS = 1500;

const bps = (step) => Number((LEAST_BPS * 10 ** (step / STEPS)).toPrecision(2));
const step = (value) => Math.round(STEPS * Math.log10(value / LEAST_BPS));

const sliders = {
  rate: { key: "up_bps", read: bps, write: step, words: say.rate },
  delay: { key: "rtt_s", read: (value) => value / 1000, write: (value) => Math.round(value * 1000), words: say.seconds },
  pace: { key: "rate", read: Number, write: Math.round, words: (value) => `${say.count(value)} a second` },
};
const held = {};
let waiting = null, sending = false, now = {};

async function send() {
  if (sending || !waiting) return;
  const order = waiting;
  waiting = null;
  sending = true;
  try {
    const reply = await fetch("panel", { method: "POST", body: JSON.stringify(order), headers: { "content-type": "application/json" } });
    set(by("problem"), reply.ok ? "" : (await reply.json()).error);
  } catch {
    set(by("problem"), "the process does not answer");
  }
  sending = false;
  send();
}

function order(changes) {
  waiting = { ...waiting, ...changes };
  send();
}

function label(id, value) {
  const words = sliders[id].words(value);
  set(by(`${id}-text`), words);
  by(id).setAttribute("aria-valuetext", words);
}

export function start() {
  for (const [id, slider] of Object.entries(sliders)) {
    by(id).addEventListener("input", () => {
      held[id] = performance.now();
      const value = slider.read(Number(by(id).value));
      label(id, value);
      order({ [slider.key]: value });
    });
  }
  by("outage").addEventListener("click", () => order({ outage: !now.outage }));
  by("server").addEventListener("click", () => order({ server: !now.server }));
}

// Whether somebody is there to obey.
export function enable(isThere) {
  for (const each of document.querySelectorAll("#panel input, #panel button")) each.disabled = !isThere;
}

export function show(panel, link) {
  now = panel;
  by("panel").hidden = false;
  for (const [id, slider] of Object.entries(sliders)) {
    if (performance.now() - (held[id] ?? -HELD_MS) < HELD_MS) continue;
    by(id).value = slider.write(panel[slider.key]);
    label(id, panel[slider.key]);
  }
  by("outage").setAttribute("aria-pressed", String(panel.outage));
  set(by("outage"), panel.outage ? "Mend the link" : "Cut the link");
  set(by("server"), panel.server ? "Stop the server" : "Start the server");
  if (link && link.heard === null) set(by("believed"), "The edge has not asked over the link yet.");
  else if (link && !link.heard) set(by("believed"), "The last request had no reply: the edge tries the link now and then.");
  else if (link) set(by("believed"), `The edge itself has seen: ${say.rate(link.up_bps)} up, ${say.seconds(link.rtt_s)} there and back.`);
}

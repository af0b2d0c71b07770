// What is predicted and what was measured, one under the other: bars in parts, and shares over time.
import { byId, bytes, chance, joules, make, percent, seconds } from "./view_words.js";

const HUES = {
  computing: "--h1", "making the answer": "--h8", encoding: "--h5",
  "bytes up": "--h3", "round trip": "--h6", "reply down": "--h7", messages: "--h4",
  "waiting for a worker": "--h8", decoding: "--h5", "computing there": "--h2",
  head: "--h1", "edge's own, encode": "--own-all", "link and messages": "--link-all", tail: "--h2",
};
const WORDS = {
  computing: "head, on the device", "making the answer": "around it, on the device", encoding: "encode",
  "bytes up": "up", "round trip": "round trip", "reply down": "down", messages: "messages",
  "waiting for a worker": "wait for a worker", decoding: "decode, on the server", "computing there": "tail, on the server",
  head: "head, on the device", "edge's own, encode": "encode and around it", "link and messages": "link and messages", tail: "tail, on the server",
};

// What can be measured, and of which predicted parts it is made.
const GROUPS = [
  ["head", ["computing"], "other work slows this machine down, or its clock is lower than when the page opened"],
  ["edge's own, encode", ["making the answer", "encoding"], "other work on this machine delays the edge between its parts"],
  ["link and messages", ["bytes up", "round trip", "reply down", "messages"], "the link is made by a process of this machine, and is slower where others keep that waiting"],
  ["tail", ["waiting for a worker", "decoding", "computing there"], "the server shares this machine's processors with the edge, and wakes up for each answer"],
];

// The predicted parts summed as they are measured, and how much more each took.
export function apart(parts, seen) {
  const of = (list, name) => list.find((part) => part.name === name)?.s ?? 0;
  return GROUPS.map(([name, names, why]) => {
    const s = names.reduce((sum, each) => sum + of(parts, each), 0);
    return { name, s, more: of(seen, name) - s, words: WORDS[name], why };
  });
}

export function drawTimes(predicted, measured, deadline) {
  const scale = Math.max(predicted.times.mean_s, measured?.mean_s ?? 0, 1e-9);
  bar(byId("predicted"), predicted.parts, predicted.times.mean_s, scale);
  byId("together").hidden = !measured?.answers;
  bar(byId("together"), measured?.answers ? apart(predicted.parts, measured.parts) : [], predicted.times.mean_s, scale);
  if (measured?.answers) bar(byId("measured"), measured.parts, measured.mean_s, scale);
  else byId("measured").replaceChildren();
  drawParts(predicted.parts, measured?.answers ? measured : null);
  curve(predicted.times, measured?.answers ? measured : null, deadline);
}

function bar(where, parts, mean, scale) {
  const shown = parts.map((part) => {
    const piece = make("span", { title: `${WORDS[part.name]}: ${seconds(part.s)}` });
    piece.style.setProperty("--part", (1000 * part.s) / (mean || 1));
    piece.style.setProperty("--hue", `var(${HUES[part.name]})`);
    return piece;
  });
  where.replaceChildren(...shown);
  where.style.width = `${(100 * mean) / scale}%`;
  where.setAttribute("aria-label", `${seconds(mean)}: ${parts.filter((part) => part.s > 0).map((part) => `${WORDS[part.name]} ${seconds(part.s)}`).join(", ")}`);
}

export function drawFacts(predicted, deadline) {
  const { times, accuracy } = predicted;
  const facts = [["mean", seconds(times.mean_s)], ["half are there by", seconds(times.p50_s)], ["99 % are there by", seconds(times.p99_s)]];
  if (deadline) facts.push([`there by ${seconds(deadline)}`, chance(times.in_time)]);
  facts.push(["sent for an answer, mean", bytes(predicted.up_bytes)]);
  facts.push(accuracyOf(accuracy));
  facts.push(["answered on the device", chance(predicted.edge_share)]);
  if (predicted.energy_j != null) facts.push(["device's energy", joules(predicted.energy_j)]);
  facts.push([predicted.fits ? "weights on the device" : "weights: more than the device holds", bytes(predicted.memory_bytes)]);
  byId("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function accuracyOf(accuracy) {
  if (accuracy.kind === "unknown") return ["accuracy: give --samples and --labels", "not known"];
  const range = `${percent(accuracy.low, 1)} to ${percent(accuracy.high, 1)} on ${accuracy.samples} samples`;
  const name = accuracy.kind === "known" ? "accuracy" : "answers as the whole net does";
  return [`${name}, ${range}`, percent(accuracy.value, 1)];
}

export function drawEnds(predicted, measured) {
  if (predicted.ends.length < 2) return byId("ends").replaceChildren();
  const head = ["leaves at", "where", "share", "half by", ...(measured?.answers ? ["measured"] : [])];
  const rows = predicted.ends.map((end) => make("tr", {},
    make("th", { scope: "row", class: "text" }, end.exit),
    make("td", { class: "text" }, end.where === "edge" ? "device" : "server"),
    make("td", {}, percent(end.share)),
    make("td", {}, seconds(end.p50_s)),
    ...(measured?.answers ? [make("td", {}, `${measured.ends[end.exit] ?? 0} of ${measured.answers}`)] : [])));
  byId("ends").replaceChildren(make("table", {},
    make("caption", {}, "Where samples leave"),
    make("thead", {}, make("tr", {}, ...head.map((word, place) => make("th", { scope: "col", class: place < 2 ? "text" : null }, word)))),
    make("tbody", {}, ...rows)));
}

// What each part takes; what can only be measured as one stands beside all that it is made of.
function drawParts(parts, measured) {
  const of = (name) => parts.find((part) => part.name === name)?.s ?? 0;
  const seen = (name) => measured?.parts.find((part) => part.name === name)?.s;
  const rows = GROUPS.flatMap(([whole, names]) => {
    const shown = names.filter((name) => of(name) > 0);
    return shown.map((name, place) => {
      const word = make("th", { scope: "row", class: "text hue" }, WORDS[name]);
      word.style.setProperty("--hue", `var(${HUES[name]})`);
      const cells = [word, make("td", {}, seconds(of(name)))];
      if (measured && place === 0) cells.push(together(whole, shown, seen(whole) ?? 0, shown.reduce((sum, each) => sum + of(each), 0)));
      return make("tr", {}, ...cells);
    });
  });
  const head = ["mean of an answer", "predicted", ...(measured ? ["measured"] : [])];
  byId("key").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((word, place) => make("th", { scope: "col", class: place ? null : "text" }, word)))),
    make("tbody", {}, ...rows)));
}

// One measured number beside the parts that it is made of, in the colour of its piece of the bar.
function together(whole, names, seen, expected) {
  const cell = make("td", { rowspan: names.length, class: "hue" }, seconds(seen));
  cell.style.setProperty("--hue", `var(${HUES[whole]})`);
  if (names.length > 1) cell.append(make("small", {}, `${WORDS[whole]}; predicted together ${seconds(expected)}`));
  return cell;
}

const SVG = "http://www.w3.org/2000/svg";
const [HIGH, LEFT, RIGHT, TOP, LOW] = [190, 44, 14, 10, 26];

function drawn(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text != null) made.textContent = text;
  return made;
}

function curve(times, measured, deadline) {
  // As wide as its place, so that its words keep their size on a phone.
  const wide = Math.max(260, byId("curve").clientWidth || 560);
  const ends = [times.quantiles_s.at(-1), measured ? measured.seconds.at(-1) : 0];
  let most = Math.max(...ends) * 1.06 || 1;
  if (deadline && deadline < most * 3) most = Math.max(most, deadline * 1.06);
  const x = (value) => LEFT + (Math.min(value, most) / most) * (wide - LEFT - RIGHT);
  const y = (share) => HIGH - LOW - share * (HIGH - LOW - TOP);
  const label = measured ? "Share of answers over time, predicted and measured" : "Share of answers over time, predicted";
  const svg = drawn("svg", { viewBox: `0 0 ${wide} ${HIGH}`, role: "img", "aria-label": label });
  for (const share of [0, 0.5, 0.99]) {
    svg.append(drawn("line", { x1: LEFT, x2: wide - RIGHT, y1: y(share), y2: y(share), class: share ? "gr" : "ax" }));
    svg.append(drawn("text", { x: LEFT - 6, y: y(share) + 4, "text-anchor": "end", class: "ts" }, percent(share)));
  }
  for (const tick of ticks(most)) {
    svg.append(drawn("text", { x: x(tick), y: HIGH - 8, "text-anchor": "middle", class: "ts" }, seconds(tick)));
  }
  if (deadline && deadline <= most) {
    svg.append(drawn("line", { x1: x(deadline), x2: x(deadline), y1: TOP, y2: HIGH - LOW, class: "s4 ln dash" }));
    const right = x(deadline) > wide - 90;
    svg.append(drawn("text", { x: x(deadline) + (right ? -5 : 5), y: HIGH - LOW - 6, "text-anchor": right ? "end" : "start", class: "tx" }, "deadline"));
  }
  const steps = times.quantiles_s.map((value, place) => [value, times.shares[place]]);
  line(svg, "s1", [[steps[0][0], 0], ...steps, [most, steps.at(-1)[1]]], x, y);
  if (measured) {
    const seen = measured.seconds.flatMap((value, place) => [[value, place / measured.answers], [value, (place + 1) / measured.answers]]);
    line(svg, "s2", [...seen, [most, 1]], x, y);
  }
  byId("curve").replaceChildren(svg);
  byId("measured-key").hidden = !measured;
  byId("measured-key").textContent = measured ? `measured, ${measured.answers} answers` : "";
}

function line(svg, hue, points, x, y) {
  const path = points.map(([value, share], place) => `${place ? "L" : "M"}${x(value).toFixed(1)} ${y(share).toFixed(1)}`).join("");
  svg.append(drawn("path", { d: path, class: `${hue} ln` }));
}

function ticks(most) {
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, place) => place * step);
}

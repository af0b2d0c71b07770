// The net as a row of segments between boundaries: it opens into operators, and the cut is dragged.
import { byId, bytes, count, make, percent, seconds, sizes } from "./view_words.js";

const MANY = 12;
const narrow = matchMedia("(max-width: 44rem)");
let net, onCut, opened = null, cut = 0;

export function drawNet(given, moved) {
  [net, onCut] = [given, moved];
  const strip = byId("strip");
  byId("row").classList.toggle("many", net.segments.length > MANY);
  const most = Math.max(...net.segments.map((one) => one.s), 1e-9);
  strip.addEventListener("keydown", roam);
  net.boundaries.forEach((boundary, number) => {
    strip.append(boundaryOf(boundary, number));
    const segment = net.segments[number];
    if (segment) strip.append(segmentOf(segment, number, most));
  });
  byId("cut").setAttribute("aria-valuemax", net.segments.length);
  holdable(byId("cut"));
  new ResizeObserver(place).observe(strip);
  narrow.addEventListener("change", () => open(opened));
}

function boundaryOf(boundary, number) {
  const exits = net.exits.filter((one) => one.after === number);
  const button = make("button", { type: "button", tabindex: -1, title: `${boundary.name}: ${sizes(boundary.shape)}` },
    make("small", {}, bytes(boundary.bytes)),
    ...exits.map((one) => make("span", { class: "exit", "data-exit": one.name }, ...breakable(one.name))));
  button.addEventListener("click", () => onCut(number));
  return make("li", { class: "boundary", "data-boundary": number }, button);
}

function segmentOf(segment, number, most) {
  const button = make("button", { type: "button", "aria-expanded": "false", title: segment.name, tabindex: number ? -1 : 0 },
    make("strong", {}, ...breakable(segment.short)),
    make("small", { class: "time" }, seconds(segment.s)),
    make("small", {}, `${count(segment.macs)} MACs`),
    make("small", {}, `${count(segment.weights)} weights`));
  button.addEventListener("click", () => open(opened === number ? null : number));
  const made = make("li", { class: `segment${segment.s > most / 2 ? " hot" : ""}`, "data-segment": number }, button);
  made.style.setProperty("--load", segment.s / most);
  return made;
}

// A long name may break behind a dot, a slash or an underscore, and inside a word only where that is very long.
function breakable(name) {
  const pieces = name.split(/(?<=[./_])(?!\d)|(?<=[a-z])(?=[A-Z])/).flatMap((piece) => piece.match(/.{1,14}/gs) ?? []);
  return pieces.flatMap((piece, place) => (place ? [make("wbr"), piece] : [piece]));
}

// Shows where the cut is, how each boundary would travel, which exits answer, and what the planner would do.
export function showPlan(plan, best) {
  cut = plan.split;
  const last = net.segments.length;
  for (const one of document.querySelectorAll(".segment")) {
    const before = Number(one.dataset.segment) < cut;
    one.classList.toggle("edge", before);
    one.classList.toggle("server", !before);
  }
  for (const one of document.querySelectorAll(".boundary")) {
    const number = Number(one.dataset.boundary);
    const boundary = net.boundaries[number];
    const travels = boundary.codecs[plan.codec];
    one.classList.toggle("cut", number === cut);
    one.querySelector("small").textContent = bytes(number < last && travels != null ? travels : boundary.bytes);
    one.querySelector(".star")?.remove();
    if (best && best.split === number) one.firstChild.append(make("span", { class: "star" }, "★ planner"));
  }
  for (const one of document.querySelectorAll(".exit")) one.classList.toggle("on", one.dataset.exit in plan.exits);
  const handle = byId("cut");
  handle.setAttribute("aria-valuenow", cut);
  handle.setAttribute("aria-valuetext", where(cut));
  place();
}

export function where(number) {
  const last = net.segments.length;
  if (number === 0) return "all on the server";
  if (number === last) return "all on the device";
  return `cut after ${net.boundaries[number].short}, ${number} of ${last} segments on the device`;
}

// Lays the handle on the boundary where the cut is.
function place() {
  const at = document.querySelector(`[data-boundary="${cut}"]`);
  const style = byId("cut").style;
  style.left = `${at.offsetLeft - 2}px`;
  style.top = `${at.offsetTop - 2}px`;
  style.width = `${at.offsetWidth + 4}px`;
  style.height = `${at.offsetHeight + 4}px`;
}

function holdable(handle) {
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: 5, PageUp: -5 };
  handle.addEventListener("keydown", (event) => {
    const last = net.segments.length;
    const wanted = { Home: 0, End: last }[event.key] ?? (event.key in steps ? cut + steps[event.key] : null);
    if (wanted === null) return;
    event.preventDefault();
    onCut(Math.min(last, Math.max(0, wanted)));
  });
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.classList.add("held");
    handle.focus({ preventScroll: true });
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.classList.contains("held")) return;
    const edge = 70;
    if (event.clientY < edge) scrollBy(0, -12);
    else if (event.clientY > innerHeight - edge) scrollBy(0, 12);
    const number = nearest(event.clientX, event.clientY);
    if (number !== cut) onCut(number);
  });
  for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => handle.classList.remove("held"));
}

function nearest(x, y) {
  let [found, least] = [cut, Infinity];
  for (const one of document.querySelectorAll(".boundary")) {
    const box = one.getBoundingClientRect();
    // A row is chosen by its height first, then the place in it.
    const apart = Math.hypot(x - (box.left + box.right) / 2, 3 * (y - (box.top + box.bottom) / 2));
    if (apart < least) [found, least] = [Number(one.dataset.boundary), apart];
  }
  return found;
}

// One segment is reached with Tab, the others from it by the arrow keys.
function roam(event) {
  const all = [...document.querySelectorAll(".segment > button")];
  const at = all.indexOf(document.activeElement);
  const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 };
  const wanted = all[steps[event.key]];
  if (at < 0 || !wanted) return;
  event.preventDefault();
  for (const one of all) one.tabIndex = one === wanted ? 0 : -1;
  wanted.focus();
}

// Opens one segment into its operators; on a phone right below it.
function open(number) {
  document.querySelector(".strip > .operators")?.remove();
  const inside = byId("inside");
  inside.replaceChildren();
  inside.hidden = true;
  opened = number;
  for (const one of document.querySelectorAll(".segment")) {
    const isOpen = Number(one.dataset.segment) === number;
    one.firstChild.setAttribute("aria-expanded", String(isOpen));
    if (number !== null) one.firstChild.tabIndex = isOpen ? 0 : -1;
  }
  if (number === null) return place();
  const panel = panelOf(number);
  if (narrow.matches) {
    document.querySelector(`[data-segment="${number}"]`).after(make("li", { class: "operators" }, ...panel));
  } else {
    inside.append(make("div", { class: "operators" }, ...panel));
    inside.hidden = false;
  }
  place();
}

function panelOf(number) {
  const segment = net.segments[number];
  const close = make("button", { type: "button", class: "close" }, "Close");
  close.addEventListener("click", () => {
    open(null);
    document.querySelector(`[data-segment="${number}"] > button`).focus();
  });
  const [before, after] = [net.boundaries[number], net.boundaries[number + 1]];
  const parts = [close,
    make("h3", {}, segment.name),
    make("p", { class: "note" }, `${sizes(before.shape)} (${bytes(before.bytes)}) in, ${sizes(after.shape)} (${bytes(after.bytes)}) out; ` +
      `${seconds(segment.s)} here, ${count(segment.macs)} MACs, ${count(segment.weights)} weights`),
    tableOf(segment.operators, `Operators of ${segment.name}`)];
  for (const exit of net.exits.filter((one) => one.after === number + 1)) {
    parts.push(make("h3", {}, `Exit ${exit.name}, behind it: ${seconds(exit.s)}`), tableOf(exit.operators, `Operators of exit ${exit.name}`));
  }
  return parts;
}

function tableOf(operators, label) {
  const most = Math.max(...operators.map((one) => one.s ?? 0), 1e-9);
  const all = operators.reduce((sum, one) => sum + (one.s ?? 0), 0) || 1;
  const rows = operators.map((one) => {
    const bar = make("span", {});
    bar.style.setProperty("--load", (one.s ?? 0) / most);
    const name = one.name || (one.kind.startsWith("Reorder") ? "change of layout, added by the engine" : "several operators, fused by the engine");
    return make("tr", {},
      make("th", { class: "text", scope: "row" }, one.kind),
      make("td", { class: "text", "data-label": "makes" }, name),
      make("td", { "data-label": "shape" }, one.name ? sizes(one.shape) : ""),
      make("td", { "data-label": "MACs" }, one.macs ? count(one.macs) : ""),
      make("td", { "data-label": "weights" }, one.weights ? count(one.weights) : ""),
      make("td", { "data-label": "bytes" }, one.bytes ? bytes(one.bytes) : ""),
      make("td", { "data-label": "time here" }, timeOf(one, operators, all)),
      make("td", { class: "share" }, bar));
  });
  const head = ["operator", "makes", "shape", "MACs", "weights", "bytes", "time here", ""];
  const texts = make("tr", {}, ...head.map((word, place) =>
    word ? make("th", { scope: "col", class: place < 2 ? "text" : null }, word) : make("td", {})));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    make("table", { class: "stack" }, make("thead", {}, texts), make("tbody", {}, ...rows)));
}

function timeOf(one, operators, all) {
  if (one.s != null) return `${seconds(one.s)} (${percent(one.s / all)})`;
  return one.within != null ? `with ${operators[one.within].kind}` : "";
}

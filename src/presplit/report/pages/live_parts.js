// Parts of the page that are made once and then only changed where they differ.
import * as say from "./live_words.js";

export const by = (id) => document.getElementById(id);

export function set(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

export function make(name, attributes = {}, ...inside) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...inside);
  return element;
}

// Children of `parent` for `items`, made anew only if there are others than before.
function renewed(parent, keys, build) {
  const mark = JSON.stringify(keys);
  if (parent.dataset.mark !== mark) {
    parent.dataset.mark = mark;
    parent.replaceChildren(...build());
  }
}

// `pairs`: [label, value, class of the value].
export function facts(list, pairs) {
  renewed(list, pairs.map(([label]) => label), () =>
    pairs.map(([label]) => make("div", {}, make("dt", {}, label), make("dd"))));
  pairs.forEach(([, value, tone = ""], n) => {
    const place = list.children[n].lastChild;
    set(place, value);
    place.className = tone;
  });
}

export function legend(list, pairs) {
  renewed(list, pairs, () => pairs.map(([words, hue]) => make("li", { class: hue }, words)));
}

// A table of shares: [title, [{name, words, recent, whole, hue}]] each.
export function shareTables(parent, tables) {
  renewed(parent, tables.map(([title, rows]) => [title, rows.map((row) => row.name)]), () =>
    tables.map(([title, rows]) => make("table", {},
      make("caption", {}, title),
      make("thead", {}, make("tr", {}, make("th", { class: "text", scope: "col" }, "which"), make("th", { scope: "col" }, "now"), make("th", { scope: "col" }, "all"))),
      make("tbody", {}, ...rows.map((row) => make("tr", {},
        make("td", { class: "text" }, row.words, make("span", { class: "share" }, make("i", { class: row.hue }))),
        make("td"), make("td")))))));
  tables.forEach(([, rows], which) => {
    const recent = rows.reduce((sum, row) => sum + row.recent, 0) || 1;
    const whole = rows.reduce((sum, row) => sum + row.whole, 0) || 1;
    rows.forEach((row, n) => {
      const cells = parent.children[which].tBodies[0].rows[n].cells;
      cells[0].querySelector("i").style.setProperty("--part", row.recent / recent);
      set(cells[1], say.percent(row.recent / recent));
      set(cells[2], say.percent(row.whole / whole));
    });
  });
}

// The net between its boundaries, cut as `plan` says; a long one as a bar of two parts.
export function strip(list, boundaries, plan) {
  const split = plan.split;
  const long = boundaries.length > 14;
  renewed(list, [boundaries, long ? split : 0], () => {
    if (long) {
      const part = (share, hue) => {
        const span = make("span", { class: hue });
        span.style.setProperty("--part", share);
        return span;
      };
      return [make("li", { class: "whole" }, make("div", { class: "bar" }, part(split, "s1"), part(boundaries.length - 1 - split, "s2")))];
    }
    return boundaries.flatMap((each, n) => [
      ...(n ? [make("li", { class: "segment" }, each.name)] : []),
      make("li", { class: "boundary" }, n ? "" : "input", make("small", {}, say.bytes(each.bytes))),
    ]);
  });
  if (long) return;
  [...list.children].forEach((item, n) => {
    const number = Math.ceil(n / 2);
    if (n % 2 === 0) as(item, number === split && number < boundaries.length - 1 && plan.bytes !== null ? `${say.bytes(plan.bytes)} sent` : "");
    const name = n % 2 ? `segment ${number <= split ? "edge" : "server"}` : `boundary${number === split ? " cut" : ""}`;
    if (item.className !== name) item.className = name;
  });
}

// What is sent at a boundary, as a second line below the bytes of its values.
function as(item, words) {
  const sizes = item.querySelectorAll("small");
  if (sizes.length === 1 && words) item.append(make("small", {}, words));
  else if (sizes.length === 2 && !words) sizes[1].remove();
  else if (words) set(sizes[1], words);
}

// The rows of the table that have answered, and the one that does now.
export function planRows(table, plans, end) {
  const shown = plans.map((plan, number) => ({ ...plan, number })).filter((plan) => plan.whole || plan.current);
  const columns = ["way", "sent as", "bytes sent", "exits that answer", "now", "all"];
  renewed(table, shown.map((plan) => plan.number), () => [
    make("thead", {}, make("tr", {}, ...columns.map((name, n) => make("th", { class: [0, 1, 3].includes(n) ? "text" : "", scope: "col" }, name)))),
    make("tbody", {}, ...shown.map((plan) => {
      const exits = Object.entries(plan.exits).map(([name, least]) => `${name} from ${Number(least.toPrecision(3))}`).join(", ");
      const isSent = plan.split !== end;
      const bytes = plan.bytes === null ? "not known" : say.bytes(plan.bytes);
      const words = [isSent ? plan.codec : "nothing", isSent ? bytes : "none", exits || "none", "", ""];
      return make("tr", {}, make("th", { scope: "row", class: "text" }, say.cut(plan, end)),
        ...words.map((word, n) => make("td", { class: n === 0 || n === 2 ? "text" : "", "data-label": columns[n + 1] }, word)));
    })),
  ]);
  const sum = (key) => shown.reduce((total, plan) => total + plan[key], 0) || 1;
  const recent = sum("recent"), whole = sum("whole");
  shown.forEach((plan, n) => {
    const row = table.tBodies[0].rows[n];
    row.className = plan.current ? "chosen" : "";
    set(row.cells[4], say.percent(plan.recent / recent));
    set(row.cells[5], say.percent(plan.whole / whole));
  });
  return plans.length - shown.length;
}

export function picture(canvas, found) {
  if (!found.pixels) return false;
  const raw = Uint8Array.from(atob(found.pixels), (each) => each.charCodeAt(0));
  if (canvas.width !== found.width) canvas.width = found.width;
  if (canvas.height !== found.height) canvas.height = found.height;
  const image = new ImageData(found.width, found.height);
  for (let n = 0; n < found.width * found.height; n++) {
    for (let channel = 0; channel < 3; channel++) image.data[4 * n + channel] = raw[n * found.channels + (channel % found.channels)];
    image.data[4 * n + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return true;
}

// Two charts of a minute, as SVG: bars stacked by second, and times on a logarithmic scale.

const LEFT = 46, TOP = 10, BOTTOM = 172, HEIGHT = 200;
let right = 436;

// One unit is one pixel, so that text has its own size however wide the chart is.
function fit(svg) {
  const width = Math.round(svg.clientWidth) || 440;
  right = width - 4;
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
}

function text(x, y, words, anchor) {
  return `<text class="ts" x="${x}" y="${y}" text-anchor="${anchor}">${words}</text>`;
}

function frame(ticks, y) {
  let found = "";
  for (const [value, label] of ticks) {
    const at = y(value).toFixed(1);
    found += `<line class="gr" x1="${LEFT}" x2="${right}" y1="${at}" y2="${at}"/>`;
    found += text(LEFT - 6, Number(at) + 4, label, "end");
  }
  found += text(LEFT, BOTTOM + 20, "60 s ago", "start") + text((LEFT + right) / 2, BOTTOM + 20, "30 s", "middle");
  return found + text(right, BOTTOM + 20, "now", "end");
}

function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 4, 5, 10].map((each) => each * power).find((each) => each >= value);
}

// `parts`: for each second the counts of each colour, from the bottom; `hues`: a class for each.
export function stacked(svg, parts, hues) {
  fit(svg);
  const most = roundUp(Math.max(4, ...parts.map((each) => each.reduce((a, b) => a + b, 0))));
  const y = (value) => BOTTOM - ((BOTTOM - TOP) * value) / most;
  const step = (right - LEFT) / parts.length;
  const paths = hues.map(() => "");
  parts.forEach((counts, second) => {
    let base = 0;
    counts.forEach((count, which) => {
      if (count <= 0) return;
      const x = (LEFT + second * step).toFixed(1);
      const low = y(base), high = y((base += count));
      paths[which] += `M${x} ${low.toFixed(1)}h${(step - 1).toFixed(1)}V${high.toFixed(1)}h${(1 - step).toFixed(1)}z`;
    });
  });
  const ticks = [0, most / 2, most].map((value) => [value, String(value)]);
  svg.innerHTML = frame(ticks, y) + paths.map((d, n) => `<path class="ar ${hues[n]}" d="${d}"/>`).join("");
}

function decades(low, high) {
  const found = [];
  const names = { "-6": "1 µs", "-5": "10 µs", "-4": "0.1 ms", "-3": "1 ms", "-2": "10 ms", "-1": "0.1 s", 0: "1 s", 1: "10 s", 2: "100 s" };
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) found.push([power, names[power] ?? `1e${power} s`]);
  return found;
}

// `lines`: [values in seconds for each second (0: none), class]; `limit`: a time that is drawn too.
export function timeLines(svg, lines, limit) {
  fit(svg);
  const all = lines.flatMap(([values]) => values).filter((value) => value > 0);
  if (limit) all.push(limit);
  const logs = (all.length ? all : [0.001, 0.1]).map(Math.log10);
  const ticks = decades(Math.min(...logs), Math.max(...logs));
  const low = ticks[0][0], high = Math.max(ticks.at(-1)[0], low + 1);
  const y = (log) => BOTTOM - ((BOTTOM - TOP) * (log - low)) / (high - low);
  let found = frame(ticks, y);
  if (limit) {
    const at = y(Math.log10(limit)).toFixed(1);
    found += `<line class="ln s0" stroke-dasharray="5 4" x1="${LEFT}" x2="${right}" y1="${at}" y2="${at}"/>`;
  }
  for (const [values, hue] of lines) {
    const step = (right - LEFT) / values.length;
    let d = "", pen = "M";
    values.forEach((value, second) => {
      if (value <= 0) { pen = "M"; return; }
      const x = LEFT + (second + 0.5) * step;
      d += `${pen}${x.toFixed(1)} ${y(Math.log10(value)).toFixed(1)}${pen === "M" ? "h0.01" : ""}`;
      pen = "L";
    });
    found += `<path class="ln ${hue}" stroke-linecap="round" d="${d}"/>`;
  }
  svg.innerHTML = found;
}

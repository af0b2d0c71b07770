// Numbers as people read them, and elements made of text.

function scaled(value, units) {
  const found = units.find(([, size]) => Math.abs(value) / size >= 0.9995) ?? units[units.length - 1];
  const shown = value / found[1];
  const digits = Math.abs(shown) >= 999.5 ? shown.toFixed(0) : String(Number(shown.toPrecision(3)));
  return `${digits} ${found[0]}`.trim();
}

export const seconds = (value) =>
  value === 0 ? "0 s" : scaled(value, [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]]);
export const bytes = (value) =>
  value === 0 ? "0 B" : scaled(value, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]]);
export const joules = (value) =>
  value === 0 ? "0 J" : scaled(value, [["J", 1], ["mJ", 1e-3], ["µJ", 1e-6], ["nJ", 1e-9]]);
export const count = (value) =>
  value < 1e4 ? String(value) : scaled(value, [["G", 1e9], ["M", 1e6], ["k", 1e3]]);
export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)} %`;
export const sizes = (shape) => (shape.length ? shape.join(" × ") : "1");

// A share that is nearly all or nearly none is not rounded to all or none.
export function chance(share) {
  if (share > 0.999 && share < 1) return "over 99.9 %";
  if (share > 0 && share < 0.001) return "under 0.1 %";
  return percent(share, share > 0.9 && share < 1 ? 1 : 0);
}

// An element: its name, its attributes, and what it holds (elements or text).
export function make(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...inside.filter((each) => each != null));
  return made;
}

export const byId = (id) => document.getElementById(id);

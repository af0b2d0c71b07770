// Numbers and words as people read them; the same rounding as presplit.core.units.

function digits(value) {
  return Math.abs(value) >= 999.5 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function scaled(value, units) {
  if (!value) return `0 ${units.find(([, size]) => size === 1)[0]}`;
  const [name, size] = units.find(([, size]) => Math.abs(value) / size >= 0.9995) ?? units.at(-1);
  return `${digits(value / size)} ${name}`;
}

export const seconds = (value) => scaled(value, [["s", 1], ["ms", 1e-3], ["µs", 1e-6], ["ns", 1e-9]]);
export const bytes = (value) => scaled(value, [["GB", 1e9], ["MB", 1e6], ["kB", 1e3], ["B", 1]]);
export const rate = (value) => scaled(value, [["Gbit/s", 1e9], ["Mbit/s", 1e6], ["kbit/s", 1e3], ["bit/s", 1]]);
export const joules = (value) => scaled(value, [["J", 1], ["mJ", 1e-3], ["µJ", 1e-6], ["nJ", 1e-9]]);
export const percent = (value) => {
  const isRound = value <= 0 || value >= 1 || (value > 0.0995 && value < 0.99);
  return `${(100 * value).toFixed(isRound ? 0 : 1)} %`;
};
export const count = (value) => Math.round(value).toLocaleString("en");
export const times = (value) => `${digits(value)}×`;
export const since = (value) => {
  if (value < 100) return `${value.toFixed(0)} s`;
  return value < 6000 ? `${(value / 60).toFixed(0)} min` : `${(value / 3600).toFixed(1)} h`;
};

export const isGood = (name) => ["confident", "planned", "server"].includes(name);

// Where the net is cut, of so many segments.
export const cut = (plan, end) => {
  if (plan.split === 0) return "all on the server";
  return plan.split === end ? "all on the edge" : `cut at ${plan.at}`;
};

// The link is known while requests have replies.
export const linkNow = (link) => {
  if (link.heard) return [rate(link.up_bps), seconds(link.rtt_s)];
  return link.heard === null ? ["not known yet", "not known yet"] : ["not known: no reply", "not known: no reply"];
};

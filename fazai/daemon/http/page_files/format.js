// Figures as people read them.

export function age(seconds) {
  if (!Number.isFinite(seconds)) return "";
  const s = Math.max(0, Math.round(seconds));
  if (s < 90) return `${s} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export function percent(ratio) {
  return ratio === undefined || ratio === null ? "" : `${Math.round(ratio * 100)} %`;
}

export function number(value, digits = 2) {
  if (value === undefined || value === null) return "";
  return Math.abs(value) >= 100 ? String(Math.round(value)) : String(Number(value.toFixed(digits)));
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value) {
  if (value === undefined || value === null || !Number.isFinite(value)) return "";
  let unit = 0;
  let left = Math.abs(value);
  while (left >= 1024 && unit < UNITS.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${value < 0 ? "-" : ""}${left >= 100 || unit === 0 ? Math.round(left) : left.toFixed(1)} ${UNITS[unit]}`;
}

const two = (value) => String(value).padStart(2, "0");

export function clock(date, seconds = true) {
  return `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? `:${two(date.getSeconds())}` : ""}`;
}

export function day(date) {
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
}

export function moment(text) {
  if (!text) return "";
  const date = new Date(text);
  return `${day(date)} ${clock(date)}`;
}

// The address of a machine's page; names come from devices and may hold anything.
export function machine(kind, name) {
  return `#/machine/${encodeURIComponent(kind)}/${encodeURIComponent(name)}`;
}

export function count(value, noun) {
  return `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
}

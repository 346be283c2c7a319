"use strict";

// What the page tells, and how elements and numbers are made. Text is only ever set as text: a name
// from a run or a config is never read as markup.

const content = JSON.parse(document.getElementById("content").textContent);

const byId = (id) => document.getElementById(id);

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && typeof value === "boolean") made[name] = value;
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// A table: `head` are the titles, `rows` the cells; a cell is text, or {text or node, class}.
function table(caption, head, rows) {
  const cell = (tag, value) => {
    const { node, text, kind } =
      value !== null && typeof value === "object" ? value : { text: value };
    return element(tag, { class: kind ?? null }, node ?? String(text ?? "–"));
  };
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((title) => cell("th", title)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((v) => cell("td", v))))),
  );
}

function fill(select, options, value) {
  select.replaceChildren(
    ...options.map(([key, label]) => element("option", { value: key }, label)),
  );
  if (value !== undefined && value !== null) select.value = value;
  select.closest("label").hidden = options.length < 2;
}

// A section without content is hidden, and so is the link to it.
function showSection(id, wanted) {
  byId(id).hidden = !wanted;
  document.querySelector(`nav a[href="#${id}"]`).hidden = !wanted;
}

const unique = (values) => [...new Set(values)];

const numeric = (text) => ({ text, kind: "number" });

const whole = (value) => (value === null ? "–" : Math.round(value).toLocaleString("en"));

// Four digits.
function short(value) {
  if (value === null) return "–";
  const tiny = value !== 0 && Math.abs(value) < 1e-3;
  if (tiny) return value.toExponential(3).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function seconds(value) {
  if (value < 100) return `${short(value)} s`;
  return value < 7200 ? `${(value / 60).toFixed(1)} min` : `${(value / 3600).toFixed(1)} h`;
}

// A value of a metric: accuracies in percent.
function measured(value, metric) {
  if (value === null || value === undefined) return "–";
  return content.metrics[metric].fraction ? `${(100 * value).toFixed(2)} %` : short(value);
}

function estimated(estimate, metric) {
  if (estimate.mean === null) return "–";
  const mean = measured(estimate.mean, metric);
  return estimate.error === null ? mean : `${mean} ± ${measured(estimate.error, metric)}`;
}

function interval(estimate, metric) {
  const [low, high] = estimate.interval;
  return low === null ? "–" : `${measured(low, metric)} to ${measured(high, metric)}`;
}

const runName = (place) => `${content.rows[place].name}, seed ${content.rows[place].seed}`;

// "sweep/rk4/chosen, seeds 0, 1" for the rows of one average.
function sources(places) {
  const seeds = new Map();
  for (const { name, seed } of places.map((place) => content.rows[place])) {
    seeds.set(name, [...(seeds.get(name) ?? []), seed]);
  }
  return [...seeds]
    .map(([name, own]) => `${name}, seed${own.length > 1 ? "s" : ""} ${own.join(", ")}`)
    .join("; ");
}

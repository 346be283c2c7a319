// How lines are told apart, and what all plots have in common.

const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot"];
const COLOURS = 7;
const STROKES = { solid: "", dash: "7 4", dashdot: "7 3 2 3", dot: "2 3", longdash: "12 4" };

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function mark(number) {
  const colour = number % COLOURS;
  const dash = DASHES[(colour + Math.floor(number / COLOURS)) % DASHES.length];
  return { colour: variable(`--mark-${colour}`), variable: `--mark-${colour}`, dash };
}

// The same colour with opacity, for bands.
const pale = (colour) => `${colour}38`;

function swatch({ variable: name, dash }) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  made.setAttribute("class", "mark");
  made.setAttribute("viewBox", "0 0 38 12");
  made.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const stroke = STROKES[dash] ?? "12 3 2 3";
  const attributes = { x1: 0, y1: 6, x2: 38, y2: 6, "stroke-width": 3, "stroke-dasharray": stroke };
  for (const [key, value] of Object.entries(attributes)) line.setAttribute(key, value);
  line.style.stroke = `var(${name})`;
  made.append(line);
  return made;
}

// Plotly reads a few tags in labels: names must not be taken for them.
const literal = (text) =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

function axis(title, more = {}) {
  const lines = { gridcolor: variable("--line"), linecolor: variable("--line"), zeroline: false };
  return { title: { text: literal(title) }, automargin: true, showline: true, ...lines, ...more };
}

function draw(id, traces, xaxis, yaxis, more = {}) {
  if (!window.Plotly) return; // read last, so that tables are seen first; then all is drawn
  const layout = {
    xaxis,
    yaxis,
    paper_bgcolor: variable("--paper"),
    plot_bgcolor: variable("--paper"),
    font: { color: variable("--ink"), family: "system-ui, sans-serif", size: 12 },
    hoverlabel: {
      bgcolor: variable("--raised"),
      font: { color: variable("--ink") },
      namelength: -1, // all of it
    },
    modebar: { color: variable("--faint"), activecolor: variable("--ink"), bgcolor: "#0000" },
    margin: { l: 50, r: 12, t: 30, b: 45 },
    hovermode: "closest",
    showlegend: false,
    ...more,
  };
  const buttons = ["lasso2d", "select2d", "autoScale2d"];
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: buttons };
  return Plotly.react(id, traces, layout, config);
}

const measureAxis = (metric, more = {}) =>
  axis(content.metrics[metric].label, {
    ...(content.metrics[metric].fraction ? { tickformat: ".3~%", hoverformat: ".2%" } : {}),
    ...more,
  });

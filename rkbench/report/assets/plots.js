// Curves of what is chosen in the table.

// What is to be drawn: settings with the mean over their seeds, or single seeds.
function lines(state) {
  const places = [...state.drawn].filter((p) => content.rows[p].task === state.task);
  places.sort((a, b) => a - b);
  const groups = unique(places.map((place) => content.rows[place].setting));
  const colour = (place) => groups.indexOf(content.rows[place].setting);
  const found = new Map();
  for (const place of places) {
    const row = content.rows[place];
    const setting = row.averaged ? content.settings[row.setting] : null;
    const mean = state.mode === "means" && setting?.means[state.metric];
    const key = mean ? `setting ${row.setting}` : `row ${place}`;
    if (!found.has(key)) {
      found.set(key, {
        rows: mean ? setting.rows : [place],
        mark: mark(colour(place)),
        mean: mean || null,
        label: label(row, mean),
      });
    }
  }
  return [...found.values()];
}

function label(row, mean) {
  if (mean) return row.method;
  return `${row.method}, seed ${row.seed}${row.averaged ? "" : ` (${standing(row)})`}`;
}

function pointsOf(line, state) {
  if (line.mean) {
    const { y, error, n } = line.mean;
    return { x: line.mean[state.axis], y, half: halfBand(error, n, state.band) };
  }
  const { axes, metrics } = content.rows[line.rows[0]].curves;
  const own = metrics[state.metric];
  return own ? { x: own.at.map((i) => axes[state.axis][i]), y: own.y, half: null } : null;
}

// Half the width of the band: standard errors, times Student's quantile for an interval.
function halfBand(error, n, band) {
  if (!band) return null;
  if (band === "error") return error;
  const count = (i) => (Array.isArray(n) ? n[i] : n);
  return error.map((value, i) => value * (content.t_quantiles[count(i)] ?? 0));
}

function smoothed(values, window) {
  const reach = (window - 1) / 2;
  if (!reach) return values;
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1) + value);
  return values.map((_, i) => {
    const near = Math.min(reach, i, values.length - 1 - i);
    return (sums[i + near + 1] - sums[i - near]) / (2 * near + 1);
  });
}

function traces(line, state) {
  const points = pointsOf(line, state);
  if (!points) return [];
  const { x } = points;
  const y = smoothed(points.y, state.window);
  const { colour, dash } = line.mark;
  const name = literal(line.mean ? `${line.label}: mean of ${line.rows.length} seeds` : line.label);
  const made = [];
  if (points.half) {
    const half = smoothed(points.half, state.window);
    const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip" };
    const filled = { fill: "tonexty", fillcolor: pale(colour) };
    made.push(
      { ...edge, y: y.map((value, i) => value - half[i]) },
      { ...edge, y: y.map((value, i) => value + half[i]), ...filled },
    );
  }
  const source = literal(sources(line.rows));
  const text = `${name}<br>${source}`;
  const about = { text, hoverinfo: "x+y+text" };
  made.push({ x, y, mode: "lines", line: { color: colour, dash, width: 1.8 }, name, ...about });
  if (!line.mean && content.rows[line.rows[0]].status === "diverged") {
    const end = { symbol: "x", size: 9, color: colour };
    const last = { x: x.slice(-1), y: y.slice(-1), mode: "markers", marker: end };
    made.push({ ...last, name: `${name}: diverged`, ...about });
  }
  return made;
}

// From a little below what the lowest curve had reached after a tenth of its points, so that curves
// which rise fast at first are told apart later; null for all of them.
function laterRange(shown, state) {
  if (!state.skip || state.log || !content.metrics[state.metric].fraction) return null;
  const curves = shown.map((line) => pointsOf(line, state)?.y ?? []).filter((y) => y.length);
  if (!curves.length) return null;
  const bottom = Math.min(...curves.map((y) => y[Math.floor(0.1 * (y.length - 1))]));
  const top = Math.max(...curves.map((y) => Math.max(...y)));
  const margin = 0.05 * Math.max(top - bottom, 0.02);
  return [bottom - margin, top + 2 * margin];
}

function drawCurves(state) {
  const shown = lines(state);
  const range = laterRange(shown, state);
  draw(
    "curve-plot",
    shown.flatMap((line) => traces(line, state)),
    axis(content.axes[state.axis]),
    measureAxis(state.metric, { type: state.log ? "log" : "linear", ...(range ? { range } : {}) }),
  );
  const elsewhere = [...state.drawn].filter((p) => content.rows[p].task !== state.task).length;
  const bands = { error: "one standard error", interval: "the 95 % t-interval" };
  const band = state.band && shown.some((line) => line.mean);
  byId("curve-note").textContent = [
    shown.length ? "" : "Nothing is chosen: tick runs in the table above.",
    band ? `Bands: ${bands[state.band]} of the mean over seeds.` : "",
    state.window > 1 ? `Smoothed: moving average over ${state.window} points.` : "",
    elsewhere ? `Of other workloads and not drawn here: ${counted(elsewhere, "chosen seed")}.` : "",
  ].filter(Boolean).join(" ");
  byId("drawn").replaceChildren(...(shown.length ? [drawnTable(shown, state)] : []));
}

function drawnTable(shown, state) {
  const metric = state.tableMetric;
  const numbers = (line) => {
    const row = content.rows[line.rows[0]];
    if (line.mean) {
      const own = content.settings[row.setting].scores[metric];
      if (!own) return ["–", "–", "–", "–"];
      const { final, best, diverged } = own;
      const values = [estimated(final, metric), interval(final, metric), estimated(best, metric)];
      return [...values, diverged ? `${diverged} of ${line.rows.length}` : "none"];
    }
    const { final, best } = row.results[metric] ?? { final: null, best: null };
    const diverged = row.status === "diverged" ? `at step ${whole(row.spent.step)}` : "no";
    return [measured(final, metric), "–", measured(best, metric), diverged];
  };
  const { label } = content.metrics[metric];
  const titles = [`final ${label}`, "95 % interval", `best ${label}`];
  return table(
    "What is drawn; ± one standard error",
    ["", "setting", "seeds", ...titles, "diverged", "from"],
    shown.map((line) => [
      { node: swatch(line.mark) },
      line.label,
      numeric(line.rows.length),
      ...numbers(line).map(numeric),
      sources(line.rows),
    ]),
  );
}

// The table of runs: sorted, filtered, and where one chooses what is drawn.

function columnsOf(metric) {
  const { label } = content.metrics[metric] ?? { label: "value" };
  const result = (row, name) => row.results[metric]?.[name] ?? null;
  const shownWhole = (value) => (row) => whole(value(row));
  const count = (title, value) => ({ title, value, shown: shownWhole(value), number: true });
  return [
    { title: "run", value: (row) => row.name, name: true },
    { title: "seed", value: (row) => row.seed, number: true },
    { title: "workload", value: (row) => row.task, name: true },
    { title: "optimizer", value: (row) => row.optimizer },
    {
      title: "learning rate",
      value: (row) => row.learning_rate,
      shown: (row) => short(row.learning_rate),
      number: true,
    },
    { title: "status", value: standing },
    {
      title: `final ${label}`,
      value: (row) => result(row, "final"),
      shown: (row) => measured(result(row, "final"), metric),
      number: true,
    },
    {
      title: `best ${label}`,
      value: (row) => result(row, "best"),
      shown: (row) => measured(result(row, "best"), metric),
      number: true,
    },
    count("at step", (row) => result(row, "best_step")),
    count("steps", (row) => row.spent.step),
    count("gradient evaluations", (row) => row.spent.grad_evals),
    {
      title: "seconds",
      value: (row) => row.spent.wall_time,
      shown: (row) => row.spent.wall_time.toFixed(1),
      number: true,
    },
    { title: "config", value: (row) => row.config_hash, name: true },
    { title: "remarks", value: (row) => remarks(row), name: true },
  ];
}

const remarks = (row) => [...row.notes, row.subset].filter(Boolean).join("; ");

const standing = (row) => (row.averaged ? row.status : `${row.status}, not averaged`);

function listed(state) {
  const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (row) =>
    (!state.filterTask || row.task === state.filterTask) &&
    (!state.filterOptimizer || row.optimizer === state.filterOptimizer) &&
    (!state.filterStatus || standing(row) === state.filterStatus) &&
    words.every((word) => searched(row).includes(word));
  const places = [...content.rows.keys()].filter((place) => fits(content.rows[place]));
  const column = columnsOf(state.tableMetric)[state.sortColumn];
  const key = (place) => column.value(content.rows[place]);
  return places.sort((a, b) => state.sortSign * compared(key(a), key(b), state.sortSign));
}

function searched(row) {
  row.searched ??= [
    ...[row.name, row.method, row.task, row.status, row.config_hash, ...row.notes],
  ].join(" ").toLowerCase();
  return row.searched;
}

// What is missing comes last, whichever way one sorts.
function compared(a, b, sign) {
  const gone = (value) => value === null || value === undefined || value === "";
  if (gone(a) || gone(b)) return sign * (gone(a) - gone(b));
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function showTable(state, changed) {
  const places = listed(state);
  const columns = columnsOf(state.tableMetric);
  const head = columns.map((column, number) => {
    const sorted = number === state.sortColumn;
    const direction = state.sortSign > 0 ? "ascending" : "descending";
    const sort = () => changed.sort(number);
    return element(
      "th",
      { scope: "col", "aria-sort": sorted ? direction : "none", class: column.number && "number" },
      element("button", { type: "button", "data-column": number, onclick: sort }, column.title),
    );
  });
  const body = places.map((place) => tableRow(place, columns, state.drawn.has(place), changed));
  byId("table").replaceChildren(
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "draw"), ...head)),
      element("tbody", {}, ...body),
    ),
  );
  showCount(state, places.length);
}

function showCount(state, listed) {
  byId("count").textContent =
    `${listed} of ${content.rows.length} seeds listed, ${state.drawn.size} drawn`;
}

function tableRow(place, columns, drawn, changed) {
  const row = content.rows[place];
  const box = element("input", {
    type: "checkbox",
    checked: drawn,
    "aria-label": `draw ${runName(place)}`,
    "data-place": place,
    onchange: (event) => {
      event.target.closest("tr").classList.toggle("drawn", event.target.checked);
      changed.draw(place, event.target.checked);
    },
  });
  const cells = columns.map((column) => {
    const text = column.shown ? column.shown(row) : (column.value(row) ?? "–");
    return element("td", { class: column.number ? "number" : column.name && "name" }, String(text));
  });
  return element("tr", { class: drawn ? "drawn" : null }, element("td", {}, box), ...cells);
}

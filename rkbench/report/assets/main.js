// The state of the page, and what happens when it changes.

const scored = Object.keys(content.metrics).filter((metric) => content.metrics[metric].scored);
const tasks = unique(content.rows.map((row) => row.task));
const rowsOf = (task) => content.rows.filter((row) => row.task === task).length;
const largestTask = tasks.reduce((a, b) => (rowsOf(b) > rowsOf(a) ? b : a), tasks[0]);

const state = {
  // the table
  text: "",
  filterTask: "",
  filterOptimizer: "",
  filterStatus: "",
  sortColumn: 0,
  sortSign: 1,
  tableMetric: content.first_metric ?? scored[0] ?? null,
  drawn: new Set(contenders(largestTask)), // places of rows
  // the curves
  task: largestTask,
  metric: content.first_metric ?? Object.keys(content.metrics)[0],
  axis: "step",
  mode: "means",
  band: "error",
  window: 1,
  log: false,
  skip: true,
  // the other plots
  rateTask: null,
  rateMetric: null,
  rateQuantity: "final",
  profileAxis: "grad_evals",
};

// The rows that stand for the optimizers of a workload; without any, its first.
function contenders(task) {
  const own = content.contenders.filter((place) => content.rows[place].task === task);
  return own.length ? own : [content.rows.findIndex((row) => row.task === task)];
}

function showDrawn() {
  drawCurves(state);
  showDifferences(state);
}

const changed = {
  sort(number) {
    state.sortSign = number === state.sortColumn ? -state.sortSign : 1;
    state.sortColumn = number;
    showTable(state, changed);
    byId("table").querySelector(`[data-column="${number}"]`).focus();
  },
  draw(place, wanted) {
    if (wanted) state.drawn.add(place);
    else state.drawn.delete(place);
    const { task } = content.rows[place];
    if (wanted && [...state.drawn].every((other) => content.rows[other].task === task)) {
      chooseTask(task);
    }
    showCount(state, listed(state).length);
    showDrawn();
  },
};

function chooseTask(task) {
  state.task = task;
  byId("curve-task").value = task;
}

function replaceDrawn(places) {
  state.drawn = new Set(places);
  const there = unique([...state.drawn].map((place) => content.rows[place].task));
  if (there.length && !there.includes(state.task)) chooseTask(there[0]);
  showTable(state, changed);
  showDrawn();
}

// An input that changes one field of the state, and what is shown again then.
function bind(id, field, show, read = (input) => input.value) {
  const input = byId(id);
  input.addEventListener("input", () => {
    state[field] = read(input);
    show();
  });
}

const pairs = (values) => values.map((value) => [value, value]);
const labels = (metrics) => metrics.map((metric) => [metric, content.metrics[metric].label]);
const withAll = (values) => [["", "all"], ...pairs(values)];

function fillSelects() {
  fill(byId("filter-task"), withAll(tasks));
  fill(byId("filter-optimizer"), withAll(unique(content.rows.map((row) => row.optimizer))));
  fill(byId("filter-status"), withAll(unique(content.rows.map(standing))));
  fill(byId("curve-task"), pairs(tasks), state.task);
  fill(byId("curve-metric"), labels(Object.keys(content.metrics)), state.metric);
  for (const id of ["curve-axis", "profile-axis"]) fill(byId(id), Object.entries(content.axes));
  byId("profile-axis").value = state.profileAxis;
  const rateTasks = unique(content.sensitivities.map((one) => one.task));
  const rateMetrics = unique(content.sensitivities.map((one) => one.metric));
  state.rateTask = rateTasks.includes(state.task) ? state.task : rateTasks[0];
  state.rateMetric = rateMetrics.find((metric) => metric !== "train/accuracy") ?? rateMetrics[0];
  fill(byId("rate-task"), pairs(rateTasks), state.rateTask);
  fill(byId("rate-metric"), labels(rateMetrics), state.rateMetric);
}

function bindAll() {
  const list = () => showTable(state, changed);
  bind("filter-text", "text", list);
  bind("filter-task", "filterTask", list);
  bind("filter-optimizer", "filterOptimizer", list);
  bind("filter-status", "filterStatus", list);
  bind("curve-task", "task", () => drawCurves(state));
  bind("curve-metric", "metric", () => {
    if (content.metrics[state.metric].scored) state.tableMetric = state.metric;
    list();
    drawCurves(state);
  });
  bind("curve-axis", "axis", () => drawCurves(state));
  bind("curve-mode", "mode", () => drawCurves(state));
  bind("curve-band", "band", () => drawCurves(state));
  bind("curve-log", "log", () => drawCurves(state), (input) => input.checked);
  bind("curve-skip", "skip", () => drawCurves(state), (input) => input.checked);
  bind("curve-smoothing", "window", () => {
    showWindow();
    drawCurves(state);
  }, (input) => Number(input.value));
  bind("rate-task", "rateTask", () => drawRates(state));
  bind("rate-metric", "rateMetric", () => drawRates(state));
  bind("rate-quantity", "rateQuantity", () => drawRates(state));
  bind("profile-axis", "profileAxis", () => drawProfiles(state));
  byId("draw-listed").addEventListener("click", () => replaceDrawn(listed(state)));
  byId("draw-none").addEventListener("click", () => replaceDrawn([]));
  byId("draw-contenders").addEventListener("click", () => replaceDrawn(contenders(state.task)));
}

function showWindow() {
  byId("curve-window").textContent = state.window > 1 ? `${state.window} points` : "none";
}

function drawAll() {
  drawCurves(state);
  drawRates(state);
  drawProfiles(state);
}

fillSelects();
bindAll();
showWindow();
tellOverview();
tellNotes();
showTable(state, changed);
showDifferences(state);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);

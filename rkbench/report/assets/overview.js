// What ran, on what, at which commit, what it cost, and what no number contains.

function tellOverview() {
  const { rows, optimizers, sources } = content;
  const folders = unique(rows.map((row) => row.name)).length;
  const workloads = unique(rows.map((row) => row.task)).length;
  const counts = [[folders, "run"], [rows.length, "seed"], [workloads, "workload"]];
  const made = content.made.replace("T", " ").replace("+00:00", " UTC");
  byId("made").textContent =
    `${counts.map((pair) => counted(...pair)).join(", ")}. ` +
    `Made ${made} by rkbench ${content.rkbench}.`;
  tellLines(content.warnings, "Warnings");
  tellLines(content.omissions, "Left out of all averages");
  byId("optimizers").append(optimizerTable(optimizers));
  byId("sources").append(sourceTable(sources));
}

function tellLines(lines, title) {
  if (!lines.length) return;
  const items = lines.map((line) => element("li", {}, line));
  const summary = element("summary", { class: "warning" }, `${title} (${lines.length})`);
  const list = element("ul", {}, ...items);
  byId("remarks").append(element("details", { open: lines.length <= 8 }, summary, list));
}

function optimizerTable(optimizers) {
  return table(
    "What ran and what it cost: seeds of all settings together, seconds of training",
    ["workload", "optimizer", "settings", "seeds", "outcomes", "gradient evaluations", "time"],
    optimizers.map((one) => [
      one.task,
      one.optimizer,
      numeric(one.settings),
      numeric(one.seeds),
      Object.entries(one.statuses).map(([status, count]) => `${count} ${status}`).join(", "),
      numeric(whole(one.grad_evals)),
      numeric(seconds(one.seconds)),
    ]),
  );
}

function sourceTable(sources) {
  return table(
    "Where it comes from",
    ["commit", "started (UTC)", "seeds", "time", "commands", "devices", "machine", "versions"],
    sources.map((one) => [
      { text: commit(one), kind: "name" },
      unique([one.first_started, one.last_started]).map((t) => t.slice(0, 16)).join(" to "),
      numeric(one.seeds),
      numeric(seconds(one.seconds)),
      { node: commands(one.commands) },
      unique(one.devices ?? []).join(", "),
      one.host ? `${one.host.cpus} processors, ${one.host.platform}` : "–",
      Object.entries(one.versions ?? {}).map((pair) => pair.join(" ")).join(", "),
    ]),
  );
}

const commit = ({ commit, dirty }) =>
  commit ? commit.slice(0, 10) + (dirty ? " and changes" : "") : "unknown";

function commands(lines) {
  if (!lines.length) return document.createTextNode("–");
  return element(
    "details",
    {},
    element("summary", {}, `${lines.length}`),
    element("ul", {}, ...lines.map((line) => element("li", {}, element("code", {}, line)))),
  );
}

function tellNotes() {
  const notes = [
    "A mean is over the seeds of one setting: runs that agree in the whole config and the data. " +
      "Settings of unlike workloads, data, models or batch sizes are never averaged or compared.",
    `A curve has at most ${content.points} points. Longer ones are thinned: of each stretch of ` +
      "the log its least and its greatest value are kept, with the first and the last of all, so " +
      "no spike is lost. A mean is taken over all points before it is thinned.",
    "Smoothing is a centred moving average over the points that were kept.",
    "± is one standard error, s / √n with n − 1 in s; the 95 % interval is Student's.",
    "The final value is that of the last step; a diverged seed has none. The best value is " +
      "selected on the split it is of: by the test set, it is too good.",
    "Seconds are of training, without compilation and evaluation. Gradient evaluations count " +
      "every stage of a step.",
    "The settings drawn at first, and in the profiles, are one for each optimizer: the one with " +
      "the most seeds, of these the one with the best final mean.",
  ];
  byId("note-list").append(...notes.map((note) => element("li", {}, note)));
}

// What is told beside the curves: differences of configs, learning rates, profiles.

function flattened(config, prefix = "") {
  return Object.entries(config).flatMap(([name, value]) =>
    value !== null && typeof value === "object" && !Array.isArray(value)
      ? flattened(value, `${prefix}${name}.`)
      : [[prefix + name, value]],
  );
}

function showDifferences(state) {
  const places = [...state.drawn].sort((a, b) => a - b);
  const firsts = unique(places.map((place) => content.rows[place].config)).map((config) =>
    places.find((place) => content.rows[place].config === config),
  );
  const configs = firsts.map((p) => new Map(flattened(content.configs[content.rows[p].config])));
  const names = unique(configs.flatMap((config) => [...config.keys()])).sort();
  const text = (config, name) => (config.has(name) ? JSON.stringify(config.get(name)) : "–");
  const differing = names.filter((name) => unique(configs.map((c) => text(c, name))).length > 1);
  const told = differing.length
    ? table(
        "Fields in which they differ; a dash where a config has no such field",
        ["field", ...firsts.map((place) => content.rows[place].name)],
        differing.map((name) => [
          { text: name, kind: "name" },
          ...configs.map((config) => text(config, name)),
        ]),
      )
    : element("p", { class: "faint" }, "Choose runs of two or more configs.");
  byId("difference-table").replaceChildren(told);
}

function drawRates(state) {
  const own = content.sensitivities.filter(
    (one) => one.task === state.rateTask && one.metric === state.rateMetric,
  );
  showSection("sensitivity", content.sensitivities.length > 0);
  if (!own.length) return;
  const quantity = state.rateQuantity;
  const means = own.flatMap((one) => one.rates.map((rate) => rate[quantity].mean));
  const bottom = Math.min(...means.filter((mean) => mean !== null));
  draw(
    "rate-plot",
    own.flatMap((one, number) => rateTraces(one, mark(number), quantity, bottom)),
    axis("learning rate (DALR: its cap c)", { type: "log", exponentformat: "power" }),
    measureAxis(state.rateMetric),
  );
  byId("rate-note").textContent =
    "Bars: one standard error over seeds. A cross at the lower edge: every seed diverged. An " +
    "open circle: a seed diverged, or half of what the best rate gains is lost.";
  byId("rate-table").replaceChildren(rateTable(own, state.rateMetric));
}

function rateTraces(one, { colour, dash }, quantity, bottom) {
  const text = (rate) =>
    literal(
      `${one.method}, learning rate ${short(rate.value)}: ` +
        `${estimated(rate[quantity], one.metric)}, ${rate[quantity].n} seeds, ` +
        `${rate.diverged} diverged`,
    ) + `<br>${literal(sources(rate.rows))}`;
  const there = one.rates.filter((rate) => rate[quantity].mean !== null);
  const gone = one.rates.filter((rate) => rate[quantity].mean === null);
  const common = { name: literal(one.method), hoverinfo: "text" };
  const marker = { size: 8, color: colour };
  return [
    {
      ...common,
      x: there.map((rate) => rate.value),
      y: there.map((rate) => rate[quantity].mean),
      error_y: { array: there.map((rate) => rate[quantity].error ?? 0), thickness: 1 },
      mode: "lines+markers",
      line: { color: colour, dash, width: 1.8 },
      marker: { ...marker, symbol: there.map((r) => (r.stable ? "circle" : "circle-open")) },
      text: there.map(text),
    },
    {
      ...common,
      x: gone.map((rate) => rate.value),
      y: gone.map(() => bottom),
      mode: "markers",
      marker: { ...marker, symbol: "x" },
      text: gone.map(text),
    },
  ];
}

function rateTable(families, metric) {
  const diverged = (one) =>
    one.rates.filter((rate) => rate.diverged).map((rate) => short(rate.value)).join(", ");
  const range = (one) => (one.good ? `${short(one.good[0])} to ${short(one.good[1])}` : "–");
  return table(
    `Within 1 % of the best final ${content.metrics[metric].label}`,
    ["", "method", "rates tried", "best", "good range", "decades", "largest stable", "diverged"],
    families.map((one, number) => [
      { node: swatch(mark(number)) },
      one.method,
      numeric(one.rates.length),
      numeric(short(one.best)),
      { text: range(one) + (one.at_edge ? ", to the edge of what was tried" : "") },
      numeric(one.decades === null ? "–" : one.decades.toFixed(2)),
      numeric(short(one.largest_stable)),
      diverged(one) || "none",
    ]),
  );
}

function drawProfiles(state) {
  const { profiles } = content;
  showSection("profiles", profiles !== null);
  if (!profiles) return;
  const own = profiles.axes[state.profileAxis];
  draw(
    "profile-plot",
    own.map((one, number) => {
      const { colour, dash } = mark(number);
      const name = literal(`${one.optimizer}, area ${one.area.toFixed(2)}, ${one.tasks} workloads`);
      const line = { color: colour, dash, width: 2, shape: "hv" };
      return { x: one.tau, y: one.share, mode: "lines", line, name, hoverinfo: "x+y+name" };
    }),
    axis(`${content.axes[state.profileAxis]} to the target / the least`),
    axis("share of workloads solved", { range: [-0.03, 1.03], tickformat: ".0%" }),
  );
  const { label } = content.metrics[profiles.metric];
  const targets = Object.entries(profiles.targets).map(
    ([task, value]) => `${task}: ${measured(value, profiles.metric)}`,
  );
  byId("profile-note").textContent =
    `Target${profiles.given ? "" : ", 1 % from the best final mean"} of the ${label}: ` +
    `${targets.join("; ")}. The median over seeds counts, and a missed target never. A workload ` +
    "counts where two optimizers or more were run; one that was not run there has not solved it.";
  byId("profile-table").replaceChildren(profileTable(profiles, state.profileAxis));
}

function profileTable(profiles, axisName) {
  const names = profiles.axes[axisName].map((one) => one.optimizer);
  return table(
    `${content.axes[axisName]} to the target, the median over seeds`,
    ["", "optimizer", "workload", "to the target", "seeds that reached it", "area", "from"],
    profiles.contenders.map((one) => {
      const number = names.indexOf(one.optimizer);
      const spent = one.to_target[axisName];
      return [
        { node: swatch(mark(number)) },
        one.optimizer,
        one.task,
        numeric(spent === null ? "missed" : short(spent)),
        numeric(`${one.reached} of ${one.rows.length}`),
        numeric(profiles.axes[axisName][number].area.toFixed(2)),
        sources(one.rows),
      ];
    }),
  );
}

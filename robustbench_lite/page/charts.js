// Drawings without data come with the page; the models that are ticked fill them.
const charts = {
  curve: "curve",
  queries: "by_queries",
  classes: "by_class",
  confusion: "confusion",
};
const views = {};
let drawings = 0;

async function draw() {
  const mine = ++drawings;
  document.documentElement.dataset.charts = "drawing";
  const measured = state.board.entries.filter((e) => state.hues.has(e.model));
  offer(at("pushed"), measured.filter((e) => e.confusion.length).map((e) => e.model));
  for (const [id, piece] of Object.entries(charts)) {
    const anyone = state.board.entries.some((e) => e[piece] && e[piece].length !== 0);
    at(id).hidden = !anyone;
    if (!anyone) continue;
    let entries = measured.filter((e) => e[piece] && e[piece].length !== 0);
    if (id === "confusion") entries = entries.filter((e) => e.model === at("pushed").value);
    await drawOne(id, piece, entries);
    if (mine !== drawings) return; // a later choice is being drawn
    document.documentElement.dataset.first ??= Math.round(performance.now());
  }
  document.documentElement.dataset.charts = "drawn";
}

async function drawOne(id, piece, entries) {
  const target = at(id).querySelector(".chart");
  views[id]?.finalize();
  delete views[id];
  if (!entries.length) {
    const told = "Nothing to draw: tick a model in the table.";
    target.replaceChildren(make("p", { className: "quiet" }, told));
    return;
  }
  const config = structuredClone(drawing.themes[dark.matches ? "dark" : "light"]);
  config.range.category = entries.map((e) => hues()[state.hues.get(e.model)]);
  config.legend.columns = target.clientWidth < 520 && id !== "confusion" ? 1 : 2;
  config.legend.labelLimit = target.clientWidth / config.legend.columns - 30;
  const named = state.board.classes.map((name, label) => (
    { label, name, shown: state.board.classes.length <= drawing.layout.square }
  ));
  const drawn = entries.map((e) => ({ model: e.model, [piece]: e[piece] }));
  const spec = {
    ...drawing.specs[id],
    width: "container",
    autosize: { type: "fit-x", contains: "padding" },
    datasets: { entries: drawn, classes: named },
  };
  const { rows, step, gap, cell, side } = drawing.layout;
  if (id === "classes") spec.height = Math.min(named.length, rows) * (entries.length * step + gap);
  if (id === "confusion") spec.height = Math.min(cell * Math.max(named.length, 4), side);
  views[id] = await vegaEmbed(target, spec, {
    ast: true, // an interpreter: no eval, which the policy of this page forbids
    actions: false,
    renderer: "svg",
    config,
    tooltip: { theme: dark.matches ? "dark" : "light" },
  });
}

function offer(select, models, ...others) {
  const before = select.value;
  const options = models.map((model) => make("option", { value: model }, model));
  select.replaceChildren(...others, ...options);
  if (models.includes(before)) select.value = before;
}


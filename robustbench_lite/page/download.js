// The table as a file.
function csv(board) {
  const rows = board.entries.map((e) => ({
    suite: board.suite, data: board.data, n: board.n, seed: board.seed,
    rank: e.rank, model: e.model, summary: e.summary, parameters: e.parameters,
    clean: e.clean, clean_low: e.clean_ci[0], clean_high: e.clean_ci[1],
    robust: e.robust, robust_low: e.robust_ci[0], robust_high: e.robust_ci[1],
    mean_size: e.mean_size, auc: e.auc, mce: e.mce, queries: e.queries, seconds: e.seconds,
    trust: e.trust, doubts: e.doubts.join("; "), missing: e.missing,
    ...Object.fromEntries(board.trials.flatMap(({ name }) => attackFields(name, e.attacks[name]))),
  }));
  return [Object.keys(rows[0] ?? {}), ...rows.map(Object.values)]
    .map((fields) => `${fields.map(quoted).join(",")}\r\n`).join("");
}

function attackFields(name, found) {
  const values = {
    robust: found?.robust, low: found?.ci[0], high: found?.ci[1],
    mean_size: found?.mean_size, queries: found?.queries, trust: found?.trust,
  };
  return Object.entries(values).map(([field, value]) => [`${name} ${field}`, value]);
}

function quoted(value) {
  if (typeof value !== "string") return String(value ?? "");
  const text = /^[=+@\t\r-]/.test(value) ? `'${value}` : value; // or a spreadsheet would run it
  return `"${text.replaceAll('"', '""')}"`;
}

function save(ending, type, text) {
  const href = URL.createObjectURL(new Blob([text], { type }));
  const link = make("a", { download: `leaderboard.${ending}`, href });
  link.click();
  URL.revokeObjectURL(link.href);
}

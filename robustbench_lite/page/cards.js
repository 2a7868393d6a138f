// The model cards.
// A card is built when it is first opened.
function cardOf(entry, index) {
  const title = ` robust ${percent(entry.robust)} %, clean ${percent(entry.clean)} %`;
  const summary = make("summary", {}, entry.model, make("span", { className: "summary" }, title));
  const card = make("details", { id: `card-${index}` }, summary);
  card.addEventListener("toggle", () => {
    if (card.children.length > 1) return;
    card.append(make("p", {}, entry.summary));
    if (doubtsOf(entry).length) card.append(make("h3", {}, "Doubts"), list(doubtsOf(entry)));
    card.append(make("h3", {}, "Attacks"), attacksOf(entry));
    if (!Object.keys(entry.card).length) return;
    card.append(make("h3", {}, "Card"), definitions(entry.card));
  });
  return card;
}

function attacksOf(entry) {
  const heads = ["Attack", "Robust %", "Mean size", "Queries", "Trust"];
  const rows = Object.entries(entry.attacks).map(([name, found]) => make("tr", {},
    make("th", { scope: "row" }, name),
    make("td", {}, ...share(found.robust, found.ci)),
    make("td", {}, found.mean_size === null ? "\u2013" : short(found.mean_size)),
    make("td", {}, whole(found.queries)),
    make("td", {}, badge(found.trust))));
  const head = make("tr", {}, ...heads.map((title) => make("th", { scope: "col" }, title)));
  const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
  const region = { className: "scroll", tabIndex: 0, role: "region", ariaLabel: "Attacks" };
  return make("div", region, table);
}

function definitions(values) {
  return make("dl", {}, ...Object.entries(values).flatMap(([name, value]) => {
    const nested = value !== null && typeof value === "object" && !Array.isArray(value);
    const text = Array.isArray(value) ? value.join(", ") : String(value ?? "\u2013");
    return [make("dt", {}, name), make("dd", {}, nested ? definitions(value) : text)];
  }));
}

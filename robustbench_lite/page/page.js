"use strict";

const MOST = 8; // models drawn at once: one a hue
const FIRST = 5;
const EXAMPLES = 12; // shown before the button is pressed
const TRUST = ["ok", "warn", "fail"];

const at = (id) => document.getElementById(id);
const report = JSON.parse(at("data").textContent);
const drawing = JSON.parse(at("drawing").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const state = { board: report.boards[0], key: "rank", down: false, hues: new Map(), all: false };

// Every text of the report goes in as a text node: nothing here reads HTML.
function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

const percent = (share) => (100 * share).toFixed(1);
const whole = (value) => Math.round(value).toLocaleString("en");
const short = (value) => (Math.abs(value) < 1000 ? value.toPrecision(3) : whole(value));
const className = (label) => state.board.classes[label] ?? String(label);
const hues = () => drawing.hues[dark.matches ? "dark" : "light"];

function share(value, range) {
  const between = `${percent(range[0])}\u2013${percent(range[1])}`;
  return [percent(value), make("span", { className: "range" }, between)];
}

function badge(trust) {
  return make("span", { className: `badge ${trust}` }, trust);
}

function doubtsOf(entry) {
  const missing = `${entry.missing} of ${state.board.n} samples have no result`;
  return [...entry.doubts, ...(entry.missing ? [missing] : [])];
}

function list(texts) {
  return make("ul", {}, ...texts.map((text) => make("li", {}, text)));
}

function trustCell(entry) {
  const doubts = doubtsOf(entry);
  if (!doubts.length) return [badge(entry.trust)];
  const told = ` ${doubts.length} ${doubts.length === 1 ? "doubt" : "doubts"}`;
  return [make("details", {}, make("summary", {}, badge(entry.trust), told), list(doubts))];
}

function modelCell(entry) {
  const card = `card-${state.board.entries.indexOf(entry)}`;
  const link = make("a", { href: `#${card}` }, entry.model);
  link.addEventListener("click", () => { at(card).open = true; });
  return [link, make("span", { className: "summary" }, entry.summary)];
}

function rankOf(entry) {
  if (entry.rank === null) return "–";
  const sharing = state.board.entries.filter((other) => other.rank === entry.rank).length;
  return `${entry.rank}${sharing > 1 ? "=" : ""}`;
}

function plainColumn(key, title, shown) {
  const cell = (e) => (e[key] === null ? "\u2013" : shown(e[key]));
  return { key, title, value: (e) => e[key], cell };
}

function shareColumn(key, title) {
  return { key, title, value: (e) => e[key], cell: (e) => share(e[key], e[`${key}_ci`]) };
}

function textColumn(key, title, cell) {
  return { key, title, cell, rising: true, text: true };
}

function columns() {
  const { trials, entries } = state.board;
  const attacks = trials.map(({ name }) => ({
    key: `attack ${name}`,
    title: `${name} %`,
    value: (e) => e.attacks[name]?.robust ?? null,
    cell: (e) => (e.attacks[name] ? share(e.attacks[name].robust, e.attacks[name].ci) : "\u2013"),
  }));
  const found = [
    { key: "rank", title: "Rank", value: (e) => e.rank, cell: rankOf, rising: true },
    { ...textColumn("model", "Model", modelCell), value: (e) => e.model },
    shareColumn("robust", "Robust %"),
    shareColumn("clean", "Clean %"),
    ...(at("each").checked ? attacks : []),
    { ...textColumn("trust", "Trust", trustCell), value: (e) => TRUST.indexOf(e.trust) },
    plainColumn("mean_size", "Mean size", short),
    plainColumn("auc", "Curve area %", percent),
    { ...plainColumn("mce", "Corruption error %", percent), rising: true },
    plainColumn("queries", "Queries", whole),
    plainColumn("seconds", "Seconds", short),
    plainColumn("parameters", "Weights", whole),
  ];
  return found.filter(({ value }) => !entries.length || entries.some((e) => value(e) !== null));
}

// Numbers by size, names as people count (net-2 before net-10), what is missing last either way.
function compare(value, down) {
  const sign = down ? -1 : 1;
  return (one, other) => {
    const [a, b] = [value(one), value(other)];
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "string") return sign * a.localeCompare(b, "en", { numeric: true });
    return sign * (a - b);
  };
}

function passes(entry) {
  const words = at("model").value.trim().toLowerCase();
  const trusted = TRUST.indexOf(entry.trust) <= TRUST.indexOf(at("trust").value);
  return trusted && entry.model.toLowerCase().includes(words);
}

function showHead() {
  const heads = columns().map((column) => {
    const button = make("button", { type: "button" }, column.title);
    button.addEventListener("click", () => {
      state.down = state.key === column.key ? !state.down : !column.rising;
      state.key = column.key;
      showRows();
    });
    const head = make("th", { scope: "col", className: column.text ? "" : "number" }, button);
    head.dataset.key = column.key;
    return head;
  });
  at("rows").tHead.rows[0].replaceChildren(make("th", { scope: "col" }, "Draw"), ...heads);
}

function showRows() {
  const shown = columns();
  const sorted = shown.find((column) => column.key === state.key) ?? shown[0];
  for (const head of at("rows").tHead.querySelectorAll("[data-key]")) {
    const order = state.down ? "descending" : "ascending";
    if (head.dataset.key === sorted.key) head.setAttribute("aria-sort", order);
    else head.removeAttribute("aria-sort");
  }
  const entries = state.board.entries.filter(passes).sort(compare(sorted.value, state.down));
  at("rows").tBodies[0].replaceChildren(...entries.map((entry) => row(entry, shown)));
  at("count").textContent = `${entries.length} of ${state.board.entries.length} models`;
  markChosen();
}

function row(entry, shown) {
  const tick = make("input", { type: "checkbox", value: entry.model });
  tick.ariaLabel = `Draw ${entry.model}`;
  tick.addEventListener("change", () => {
    if (tick.checked) choose(entry.model);
    else state.hues.delete(entry.model);
    markChosen();
    draw();
  });
  const cells = shown.map((column) => {
    const className = column.text ? "" : "number";
    const told = [column.cell(entry)].flat();
    if (column.key === "model") return make("th", { scope: "row" }, ...told);
    return make("td", { className }, ...told);
  });
  return make("tr", {}, make("td", {}, tick), ...cells);
}

function choose(model) {
  const taken = new Set(state.hues.values());
  const free = [...Array(MOST).keys()].find((hue) => !taken.has(hue));
  if (free !== undefined) state.hues.set(model, free);
}

function markChosen() {
  for (const tick of at("rows").tBodies[0].querySelectorAll("input")) {
    const hue = state.hues.get(tick.value);
    tick.checked = hue !== undefined;
    tick.disabled = hue === undefined && state.hues.size >= MOST;
    tick.style.accentColor = hue === undefined ? "" : hues()[hue];
  }
}

function showBoard() {
  const { board } = state;
  const trials = board.trials.map((trial) => make("tr", {},
    make("th", { scope: "row" }, trial.name),
    ...[trial.attack, trial.threat].map((text) => make("td", {}, make("code", {}, text)))));
  const models = [...new Set(board.gallery.map((example) => example.model))];
  const about = `${board.suite} on ${board.data}: ${board.n} samples, seed ${board.seed}.`;
  at("about").textContent = about;
  Object.assign(state, { key: "rank", down: false, all: false });
  state.hues.clear();
  board.entries.slice(0, FIRST).forEach((entry) => choose(entry.model));
  at("each").checked = board.trials.length <= 3;
  at("trials").tBodies[0].replaceChildren(...trials);
  at("models").replaceChildren(...board.entries.map(cardOf));
  at("gallery").hidden = !models.length;
  offer(at("shown"), models, make("option", { value: "" }, "all"));
  showHead();
  showRows();
  draw();
  showGallery();
}

function start() {
  at("made").textContent = `Made on ${report.made}.`;
  at("command").textContent = report.command;
  const versions = Object.entries(report.versions).map((pair) => pair.join(" "));
  at("versions").textContent = versions.join(", ");
  at("boards").hidden = report.boards.length < 2;
  at("board").append(...report.boards.map((board, index) => (
    make("option", { value: index }, `${board.suite} on ${board.data}`)
  )));
  at("board").addEventListener("change", () => {
    state.board = report.boards[at("board").value];
    showBoard();
  });
  at("model").addEventListener("input", showRows);
  at("trust").addEventListener("change", showRows);
  at("each").addEventListener("change", () => { showHead(); showRows(); });
  at("pushed").addEventListener("change", draw);
  at("shown").addEventListener("change", showGallery);
  at("more").addEventListener("click", () => { state.all = true; showGallery(); });
  at("csv").addEventListener("click", () => save("csv", "text/csv", csv(state.board)));
  const json = () => save("json", "application/json", at("data").textContent);
  at("json").addEventListener("click", json);
  dark.addEventListener("change", () => { markChosen(); draw(); });
  if (state.board) showBoard();
  else document.documentElement.dataset.charts = "drawn";
}

addEventListener("DOMContentLoaded", start); // when the other files' constants are there too

// The quality section: cards that explain themselves, and four plots of one dictionary.

const CARDS = [
  ["fvu", "Unexplained variance", "How much of the activations' variance the dictionary misses. 0 is perfect, 1 is no better than the average.", 4],
  ["l0", "Active latents per token", "How many latents are used to write one token's activation. Fewer are easier to read.", 1],
  ["ce_recovered", "Predictions recovered", "The model runs on the reconstruction instead of its own activations. 1: it predicts as before; 0: as badly as with the activations wiped out.", 4],
  ["excess_ce", "Cost in predictions", "How much worse the next token is predicted with the reconstruction in place. Read it beside the share above, which saturates.", 4],
  ["kl", "Change of predictions", "How far the predicted distributions move, also where they stay equally good.", 4],
  ["dead", "Dead latents", "Latents that fire on none of these tokens: capacity that was paid for and is not used. None would be best.", 0],
];

function drawQuality(place) {
  const root = byId("quality");
  const cards = CARDS.filter(([name]) => place.measures[name]).map(([name, title, why, digits]) => card(place, place.measures[name], title, why, digits));
  root.replaceChildren(...[
    h("h2", { id: "quality-title" }, "Quality ", h("small", {}, `at ${place.hookpoint}, on documents never trained on`)),
    place.warnings.length ? h("ul", { class: "warning" }, place.warnings.map((text) => h("li", {}, text))) : null,
    h("div", { class: "cards" }, cards),
    h("div", { class: "plots" }, trainingPlot(place), densityPlot(place), damagePlot(place), taskPlot(place), unexplainedPlot(place)),
    denseLatents(place),
    ...place.suites.tables.map((suite) => suiteTable(place.suites, suite)),
  ].filter(Boolean));
}

function suiteTable(suites, suite) {
  const head = (text) => h("th", { scope: "col" }, text);
  const row = ([name, ...values]) => h("tr", {}, h("th", { scope: "row" }, name), values.map((value) => h("td", {}, value)));
  return h("details", { class: "table" }, h("summary", {}, `Supervised and causal: ${suite.suite}`),
    h("p", { class: "why" }, [suites.note, ...suite.left_out].join(" ")),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": suite.suite }, h("table", {}, h("thead", {}, h("tr", {}, ["", ...suites.columns].map(head))), h("tbody", {}, suite.rows.map(row)))));
}

function card(place, measure, title, why, digits) {
  
  return h("article", { class: "card" },
    h("h3", {}, title),
    h("p", { class: "value" }, fixed(measure.value, digits), " ", h("span", {}, measure.name === "dead" ? `of ${count(place.n_latents)}` : measure.unit)),
    measure.value === null ? h("p", { class: "why" }, `Undefined: ${measure.undefined}.`) : null,
    h("p", { class: "why" }, why),
    h("dl", {},
      isKnown(measure.low) ? [h("dt", {}, "95 % interval"), h("dd", {}, `${fixed(measure.low, digits)} to ${fixed(measure.high, digits)}`)] : null,
      h("dt", {}, "n"), h("dd", {}, `${count(measure.n)} ${measure.n_of} of ${count(measure.n_documents)} documents`),
      measure.baseline ? [h("dt", {}, "against"), h("dd", {}, measure.baseline)] : null),
    h("details", {}, h("summary", {}, "exact definition"),
      h("p", {}, measure.definition),
      h("p", {}, `Replaced: ${measure.masks.replaced}. Counted: ${measure.masks.counted}. Scored: ${measure.masks.scored}.`)));
}

function trainingPlot(place) {
  const { step, fvu } = place.record;
  const points = step.map((x, i) => [x, fvu[i]]).filter(([, y]) => isKnown(y) && y > 0);
  if (points.length < 2) return null;
  const held = place.measures.fvu && place.measures.fvu.value;
  const [W, H, L, R, T, B] = [460, 220, 52, 12, 10, 30];
  const values = points.map((p) => p[1]).concat(held > 0 ? [held] : []);
  const low = Math.floor(Math.log10(Math.min(...values)) * 2) / 2, high = Math.ceil(Math.log10(Math.max(...values)) * 2) / 2;
  const x = (v) => L + ((W - L - R) * v) / points[points.length - 1][0];
  const y = (v) => T + ((H - T - B) * (high - Math.log10(v))) / Math.max(high - low, 0.5);
  return plot("Training", "Unexplained variance of each recorded batch, logarithmic; dashed: on held-out rows.", W, H, (g) => {
    for (let e = Math.ceil(low); e <= high; e++) for (const m of [1, 3]) {
      const v = m * 10 ** e;
      if (Math.log10(v) < low - 1e-9 || Math.log10(v) > high + 1e-9) continue;
      g.append(line(L, y(v), W - R, y(v), "grid"), words(L - 6, y(v) + 4, short(v), "tick", "end"));
    }
    const last = points[points.length - 1][0];
    for (const part of [0, 0.5, 1]) g.append(words(x(last * part), H - 10, count(Math.round(last * part)) + (part === 1 ? " steps" : ""), "tick", part === 0 ? "start" : part === 1 ? "end" : "middle"));
    if (held > 0) g.append(line(L, y(held), W - R, y(held), "held"));
    g.append(s("polyline", { class: "curve", points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") }));
  });
}

function densityPlot(place) {
  const d = place.density;
  if (!d) return null;
  const [W, H, L, R, T, B] = [460, 220, 52, 12, 16, 30];
  const first = d.counts.findIndex((n) => n > 0);
  const from = Math.max(0, (first < 0 ? 0 : first) - 1);
  const counts = d.counts.slice(from), edges = d.edges.slice(from);
  const top = Math.max(1, d.zero, ...counts);
  const zeroWidth = 26, x0 = L + zeroWidth + 44;
  const x = (e) => x0 + ((W - x0 - R) * (e - edges[0])) / (edges[edges.length - 1] - edges[0]);
  const y = (n) => T + (H - T - B) * (1 - n / top);
  return plot("How often latents fire", `Latents by the share of ${count(d.n_rows)} tokens at which they fire; the lone bar: never.`, W, H, (g) => {
    for (const n of [0, top / 2, top]) g.append(line(L, y(n), W - R, y(n), "grid"), words(L - 6, y(n) + 4, count(Math.round(n)), "tick", "end"));
    g.append(bar(L, y(d.zero), zeroWidth, H - B - y(d.zero), "dead", `${count(d.zero)} latents never fire`), words(L + zeroWidth / 2, H - 10, "never", "tick", "middle"));
    counts.forEach((n, i) => g.append(bar(x(edges[i]) + 0.5, y(n), x(edges[i + 1]) - x(edges[i]) - 1, H - B - y(n), "fill", `${count(n)} latents fire at ${percent(10 ** edges[i])} to ${percent(10 ** edges[i + 1])} of tokens`)));
    for (let e = Math.ceil(edges[0]); e <= 0; e++) g.append(words(x(e), H - 10, percent(10 ** e), "tick", e === 0 ? "end" : "middle"));
  });
}

function damagePlot(place) {
  const names = [["ce_clean", "the model itself"], ["ce_replaced", "with the dictionary"], ["ce_mean", "activations set to mean"], ["ce_position_mean", "to their position's mean"], ["ce_zero", "activations set to zero"], ["ce_resample", "to another text's"]];
  const rows = names.filter(([name]) => place.measures[name] && isKnown(place.measures[name].value));
  if (rows.length < 2) return null;
  const [W, L, R] = [460, 168, 56], H = 22 + rows.length * 40;
  const top = Math.max(...rows.map(([name]) => place.measures[name].value));
  const scale = (v) => ((W - L - R) * v) / top;
  return plot("What it costs the model", "Cross-entropy of the next token in nats; shorter is better.", W, H, (g) => {
    rows.forEach(([name, title], i) => {
      const m = place.measures[name], y = 10 + i * 40;
      g.append(words(L - 10, y + 18, title, "tick", "end"), bar(L, y + 4, scale(m.value), 20, name === "ce_replaced" ? "fill" : "other", `${m.value} ${m.unit}`));
      if (isKnown(m.low)) g.append(line(L + scale(m.low), y + 14, L + scale(m.high), y + 14, "whisker"));
      g.append(words(L + scale(m.value) + 8, y + 18, fixed(m.value, 3), "number"));
    });
  });
}

function taskPlot(place) {
  const rows = place.tasks;
  if (!rows.length) return null;
  const [W, L, R] = [460, 150, 118], H = 34 + rows.length * 22;
  const x = (v) => L + (W - L - R) * v;
  const ns = rows.map((row) => row.n), [least, most] = [Math.min(...ns), Math.max(...ns)];
  const n = least === most ? count(most) : `${count(least)} to ${count(most)}`;
  return plot("What it can still do", `Accuracy on each task, of ${n} prompts each; ring: the model itself, dot: with the dictionary.`, W, H, (g) => {
    for (const v of [0, 0.5, 1]) g.append(line(x(v), 4, x(v), H - 24, "grid"), words(x(v), H - 8, percent(v), "tick", "middle"));
    rows.forEach((row, i) => {
      const y = 16 + i * 22, [a, b] = [row.clean, row.replaced];
      g.append(words(L - 10, y + 4, row.name, "tick", "end"), line(x(a), y, x(b), y, "whisker"),
        s("circle", { cx: x(a), cy: y, r: 5.5, class: "ring" }), s("circle", { cx: x(b), cy: y, r: 3.5, class: "dot" }),
        words(W - 4, y + 4, `${fixed(a, 3)} → ${fixed(b, 3)}`, "number", "end"));
    });
  });
}

function unexplainedPlot(place) {
  const rows = place.unexplained.classes.filter((row) => isKnown(row.error[0]));
  if (!rows.length) return null;
  const [W, L, R] = [460, 150, 118], H = 34 + rows.length * 22;
  const top = Math.ceil(10 * Math.max(...rows.flatMap((row) => [row.rows, row.error[2] ?? row.error[0]]))) / 10;
  const x = (v) => L + ((W - L - R) * v) / top;
  const linear = place.measures.error_r2;
  const more = linear && isKnown(linear.value) ? ` Of the whole error a linear map of the activation predicts ${percent(linear.value)}.` : "";
  return plot("Whose activations it misses", `Ring: a kind of token's share of the ${count(place.unexplained.n_rows)} tokens, dot: of the squared error; the number is its own unexplained variance.${more}`, W, H, (g) => {
    for (const v of [0, top / 2, top]) g.append(line(x(v), 4, x(v), H - 24, "grid"), words(x(v), H - 8, percent(v), "tick", "middle"));
    rows.forEach((row, i) => {
      const y = 16 + i * 22, [error, low, high] = row.error;
      if (isKnown(low)) g.append(line(x(low), y, x(high), y, "whisker"));
      g.append(words(L - 10, y + 4, row.name, "tick", "end"),
        s("circle", { cx: x(row.rows), cy: y, r: 5.5, class: "ring" }), s("circle", { cx: x(error), cy: y, r: 3.5, class: "dot" }),
        words(W - 4, y + 4, fixed(row.fvu, 4), "number", "end"));
    });
  });
}

function denseLatents(place) {
  const dense = place.unexplained.dense;
  if (!dense.length) return null;
  const named = dense.slice(0, 8).map((one) => `${one.latent} (${percent(one.density)}${isKnown(one.mean_cosine) ? `, ${fixed(one.mean_cosine, 2)}` : ""})`).join(", ");
  return h("p", { class: "why" }, `Latents that fire on more than a tenth of all tokens, with their share of tokens and the cosine of their direction with the mean activation (near 1, a latent does the work of a bias): ${named}${dense.length > 8 ? ", ..." : ""}.`);
}

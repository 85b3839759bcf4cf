// Planted concepts: what the best latents reach, between the floors and the ceiling.

const MARKS = [["random", "random directions", "m-random"], ["neuron", "best neuron", "m-neuron"], ["pca", "best principal component", "m-pca"], ["probe", "probe (ceiling)", "m-probe"], ["latent", "best latent", "m-latent"]];

function drawRecovery(place) {
  const root = byId("recovery"), found = place.recovery;
  root.hidden = !data.hookpoints.some((other) => other.recovery);
  if (root.hidden) return;
  root.replaceChildren(h("h2", { id: "recovery-title" }, "Planted concepts ", h("small", {}, `recovered at ${place.hookpoint}`)));
  if (!found) return root.append(h("p", {}, "Not scored at this hookpoint."));
  root.append(
    h("p", { class: "lead" }, `This text was written by a program that knows which concept each token carries, so a latent can be marked like an exam. `,
      `The plot: F1 of the best latent at telling a concept's tokens from those of its family's other concepts, chosen on training documents and measured on ${count(found.n_rows)} tokens of ${count(found.n_documents)} held-out documents; median over the family.`),
    h("div", { class: "pair" }, familyPlot(found), h("div", {}, summary(found), conceptTable(place, found), causeTable(found))));
}

function familyPlot(found) {
  const rows = [...(found.words ? [{ ...found.words, family: "all words" }] : []), ...found.families];
  const narrow = isNarrow(), [W, L, R] = narrow ? [440, 170, 16] : [560, 190, 20], top = narrow ? 82 : 64, H = top + 14 + rows.length * 26;
  const x = (v) => L + (W - L - R) * v;
  return plot("Recovery by family", "Median F1, 0 to 1. The latent should sit near its ceiling and clear of its floors.", W, H, (g) => {
    MARKS.forEach(([, title, kind], i) => {
      const [left, down] = narrow ? [20 + (i % 2) * 210, 10 + Math.floor(i / 2) * 20] : [20 + (i % 3) * 180, 12 + Math.floor(i / 3) * 20];
      g.append(mark(left, down, kind), words(left + 12, down + 4, title, "tick"));
    });
    for (const v of [0, 0.25, 0.5, 0.75, 1]) g.append(line(x(v), top - 14, x(v), H - 22, "grid"), words(x(v), H - 6, String(v), "tick", "middle"));
    rows.forEach((row, i) => {
      const y = top + i * 26;
      g.append(words(L - 12, y + 4, `${row.family} (${row.n_labels})`, i === 0 && found.words ? "tick strong" : "tick", "end"), line(x(0), y, x(1), y, "track"));
      for (const [name, title, kind] of MARKS) if (isKnown(row.f1[name])) g.append(mark(x(row.f1[name]), y, kind, `${row.family}, ${title}: ${fixed(row.f1[name], 2)}`));
    });
  });
}

function mark(x, y, kind, title) {
  const label = title ? s("title", {}, title) : null;
  if (kind === "m-probe") return s("path", { d: `M${x} ${y - 8}V${y + 8}`, class: kind }, label);
  if (kind === "m-latent") return s("circle", { cx: x, cy: y, r: 6, class: kind }, label);
  if (kind === "m-neuron") return s("rect", { x: x - 4, y: y - 4, width: 8, height: 8, class: kind }, label);
  if (kind === "m-pca") return s("path", { d: `M${x} ${y - 6}L${x + 6} ${y}L${x} ${y + 6}L${x - 6} ${y}Z`, class: kind }, label);
  return s("path", { d: `M${x} ${y - 5}L${x + 5} ${y + 4}H${x - 5}Z`, class: kind }, label);
}

function summary(found) {
  const f1 = found.words && found.words.f1, shared = found.multilingual;
  return h("p", {},
    f1 ? `Over all ${count(found.words.n_labels)} concept words: latent ${fixed(f1.latent, 2)}, probe ${fixed(f1.probe, 2)}, neuron ${fixed(f1.neuron, 2)}, principal component ${fixed(f1.pca, 2)}, random ${fixed(f1.random, 2)}; all within the concept's own family. ` : null,
    f1 ? `Among all tokens of the text, where a latent that also fires elsewhere loses: ${fixed(found.words.among_all.latent, 2)}, random ${fixed(found.words.among_all.random, 2)}. ` : null,
    isKnown(shared.share) ? `One latent serves a concept in all of its languages for ${percent(shared.share)} of ${count(shared.n)} multilingual concepts (random directions: ${percent(shared.random)}). ` : null,
    found.n_unscored ? `Too rare in this text to be scored: ${count(found.n_unscored)} labels.` : null);
}

// What the best latents do in the model: each number with its interval.
function causeTable(found) {
  const tried = found.labels.filter((row) => row.cause);
  if (!tried.length) return null;
  const cell = ([value, low, high], digits) => h("td", { title: isKnown(low) ? `95 %: ${fixed(low, digits)} to ${fixed(high, digits)}` : "" }, isKnown(value) ? fixed(value, digits) : "-", isKnown(low) ? h("small", {}, ` ${fixed(low, digits)}…${fixed(high, digits)}`) : null);
  const rows = tried.map(({ label, f1, cause: { gap, n, edits } }) => h("tr", {}, h("th", { scope: "row" }, label), h("td", {}, fixed(f1.latent, 2)), cell(gap, 3),
    cell(edits.up.moved, 3), cell(edits.random.moved, 3), cell(edits.zero.moved, 3), cell(edits.ablate.moved, 3), cell(edits.ablate.specificity, 2), h("td", {}, count(n))));
  const heads = ["concept", "F1", "gap", "held at maximum", "random push", "held at zero", "ablated", "specificity", "predictions"];
  return h("details", { class: "table" }, h("summary", {}, `Detection is not cause: ${count(rows.length)} of these latents edited in the model`),
    h("p", {}, "Nats by which the model's predictions speak for the concept: gained where the concept is not (held at its maximum; as far along a random direction), or lost after it (held at zero; its direction made the mean row's). ",
      "The gap is what the concept itself makes of predictions. Specificity: of the change (KL) that ablating makes, the share after the concept; 0.5 is no more there than elsewhere. Small: 95 % intervals over documents."),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Causes" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))));
}

function conceptTable(place, found) {
  const browsable = new Set(place.features.map((feature) => feature.latent));
  const link = (latent) => browsable.has(latent) ? h("a", { href: `#/${place.hookpoint}/${latent}` }, latent) : latent;
  const rows = found.labels.map((row) => h("tr", {},
    h("th", { scope: "row" }, row.label),
    h("td", {}, fixed(row.f1.latent, 2)), h("td", {}, fixed(row.f1.probe, 2)), h("td", {}, fixed(row.f1.neuron, 2)), h("td", {}, fixed(row.f1.pca, 2)), h("td", {}, fixed(row.f1.random, 2)),
    h("td", {}, link(row.latent)), h("td", {}, fixed(row.among_all.f1, 2)), h("td", {}, link(row.among_all.latent))));
  const heads = ["concept", "F1 in its family", "probe", "neuron", "PCA", "random", "latent", "F1 among all", "latent"];
  return h("details", { class: "table" }, h("summary", {}, `All ${count(rows.length)} concepts as a table`),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Concepts" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))));
}

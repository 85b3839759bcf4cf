// Browsing features: search, sort, a list, and one feature's evidence.

const SORTS = {
  telling: ["most telling first", () => 0],  // the order in which they come: see choose.py
  f1: ["best label first", (a, b) => (b.label.f1 ?? -1) - (a.label.f1 ?? -1)],
  density: ["most frequent first", (a, b) => b.density - a.density],
  rare: ["rarest first", (a, b) => a.density - b.density],
  maximum: ["strongest first", (a, b) => b.maximum - a.maximum],
  latent: ["by number", (a, b) => a.latent - b.latent],
};
const browse = { place: null, shown: [], selected: null, query: "", sort: "telling" };

const pieceOf = ([start, , focus]) => data.pieces[data.tokens[start + focus]];

function wordsOf(feature) {
  if (!feature.words) {
    const seen = new Map();
    for (const snippet of feature.top) { const word = pieceOf(snippet).trim(); if (word) seen.set(word.toLowerCase(), word); }
    feature.words = [...seen.values()];
    feature.haystack = [feature.label.text, feature.concept ? feature.concept.label : "", feature.label.kind, String(feature.latent), ...feature.words].join("\n").toLowerCase();
  }
  return feature.words;
}

function drawFeatures(place) {
  browse.place = place;
  byId("features").replaceChildren(
    h("h2", { id: "features-title" }, "Features ", h("small", {}, `${count(place.features.length)} of ${count(place.n_latents)} latents at ${place.hookpoint}`)),
    h("div", { class: "tools" },
      h("label", { class: "search" }, h("span", {}, "Search labels and tokens"), h("input", { id: "search", type: "search", placeholder: "bridge, 大桥, 417 …", autocomplete: "off", spellcheck: "false", oninput: (event) => { browse.query = event.target.value; drawList(); } })),
      h("label", {}, h("span", {}, "Order"), h("select", { id: "sort", onchange: (event) => { browse.sort = event.target.value; drawList(); } },
        Object.entries(SORTS).map(([name, [title]]) => h("option", { value: name, selected: name === browse.sort }, title)))),
      h("p", { id: "found", role: "status" })),
    h("div", { class: "browse" },
      h("ul", { id: "list", role: "listbox", tabindex: "0", "aria-label": "Features", onkeydown: moveInList }),
      h("div", { id: "detail", role: "region", "aria-label": "Feature", tabindex: "-1" })));
  byId("search").value = browse.query;
  drawList();
}

function drawList() {
  const terms = browse.query.toLowerCase().split(/\s+/).filter(Boolean);
  const fits = (feature) => { wordsOf(feature); return terms.every((term) => feature.haystack.includes(term)); };
  browse.shown = browse.place.features.filter(fits).sort(SORTS[browse.sort][1]);
  byId("found").textContent = `${count(browse.shown.length)} shown`;
  byId("list").replaceChildren(...browse.shown.map(listItem));
  if (!browse.shown.length) byId("list").append(h("li", { class: "none" }, "No feature has all of these words."));
  const kept = browse.shown.find((feature) => feature === browse.selected);
  select(kept || browse.shown[0] || null, { quiet: true });
}

function listItem(feature) {
  const f1 = feature.label.f1;
  return h("li", { role: "option", id: `f${feature.latent}`, "aria-selected": "false", onclick: () => select(feature, { byHand: true }) },
    h("span", { class: "name" }, h("bdi", {}, feature.label.text)),
    h("span", { class: "score", title: "the label's F1 on documents the labeller did not study" }, isKnown(f1) ? f1.toFixed(2) : "–"),
    h("span", { class: "words" }, wordsOf(feature).slice(0, 6).map((word) => h("bdi", {}, word))),
    h("span", { class: "rate", title: "share of tokens at which it fires" }, percent(feature.density)));
}

function moveInList(event) {
  const at = browse.shown.indexOf(browse.selected), last = browse.shown.length - 1;
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + 8, PageUp: at - 8, Home: 0, End: last }[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  select(browse.shown[Math.min(Math.max(to, 0), last)], {});
}

function select(feature, { quiet, byHand }) {
  const list = byId("list");
  for (const item of list.querySelectorAll('[aria-selected="true"]')) item.setAttribute("aria-selected", "false");
  browse.selected = feature;
  byId("detail").replaceChildren(...(feature ? detail(feature) : []));
  if (!feature) return list.removeAttribute("aria-activedescendant");
  const item = byId(`f${feature.latent}`);
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  list.scrollTop += Math.min(0, item.offsetTop - list.offsetTop - list.scrollTop) || Math.max(0, item.offsetTop + item.offsetHeight - list.offsetTop - list.scrollTop - list.clientHeight);
  if (!quiet) history.replaceState(null, "", `#/${browse.place.hookpoint}/${feature.latent}`);
  if (byHand && isNarrow()) byId("detail").scrollIntoView({ block: "start" });
}

function detail(feature) {
  const label = feature.label;
  return [
    h("p", { class: "where" }, `${browse.place.hookpoint} / latent ${feature.latent}`),
    h("h3", {}, h("bdi", {}, feature.label.text)),
    feature.concept ? h("p", { class: "concept" }, "The planted concept ", h("b", {}, feature.concept.label), `: F1 ${fixed(feature.concept.f1, 2)} against all tokens` + (feature.concept.n_languages > 1 ? `, firing in ${feature.concept.n_languages} languages.` : ".")) : null,
    isKnown(label.f1) ? h("p", {}, label.kind ? `As a rule (${label.kind}) this label foretells where the latent fires with ` : "The best rule found foretells where the latent fires with ", h("b", {}, `F1 ${fixed(label.f1, 2)}`), `: precision ${fixed(label.precision, 2)}, recall ${fixed(label.recall, 2)}, on ${count(label.n_scored)} tokens of documents the labeller did not see; the latent fires${label.threshold > 0 ? ` above ${short(label.threshold)}` : ""} at ${count(label.n_positive)} of them.`)
      : h("p", {}, "It fires too rarely for a label to be scored."),
    h("dl", { class: "facts" },
      h("dt", {}, "fires at"), h("dd", {}, `${percent(feature.density)} of tokens (${count(feature.count)})`),
      h("dt", {}, "maximum"), h("dd", {}, short(feature.maximum)), h("dt", {}, "mean where it fires"), h("dd", {}, short(feature.mean))),
    h("div", { class: "pair" }, histogramPlot(feature), vocabulary(feature)),
    h("h4", {}, "Strongest"), h("ol", { class: "examples" }, feature.top.map((snippet) => example(snippet, feature))),
    ...feature.bands.filter((band) => band.snippets.length).reverse().map((band) => h("section", { class: "band" },
      h("h4", {}, `Activation ${short(band.low)} to ${short(band.high)} `, h("small", {}, `${count(band.count)} tokens; drawn at random`)),
      h("ol", { class: "examples" }, band.snippets.map((snippet) => example(snippet, feature))))),
  ].filter(Boolean);
}

function histogramPlot(feature) {
  if (!feature.histogram.length) return null;
  const [W, H, L, B] = [300, 130, 6, 22], top = Math.max(...feature.histogram), step = (W - 2 * L) / feature.histogram.length;
  return plot("Activations", `where it fires; tallest bar ${count(top)} tokens`, W, H, (g) => {
    feature.histogram.forEach((n, i) => {
      const height = n ? Math.max(1, ((H - B - 6) * n) / top) : 0;
      g.append(bar(L + i * step + 0.3, H - B - height, step - 0.6, height, "fill", `${count(n)} tokens at ${short((feature.maximum * i) / feature.histogram.length)} to ${short((feature.maximum * (i + 1)) / feature.histogram.length)}`));
    });
    g.append(line(L, H - B, W - L, H - B, "axis"), words(L, H - 6, "0", "tick"), words(W - L, H - 6, short(feature.maximum), "tick", "end"));
  });
}

function vocabulary(feature) {
  if (!feature.promoted.length && !feature.suppressed.length) return null;
  const column = (title, entries, kind) => h("div", {}, h("h4", {}, title), h("ul", { class: `pieces ${kind}` }, entries.map(([piece, logit]) => h("li", {}, h("bdi", {}, piece), h("span", {}, (logit > 0 ? "+" : "") + fixed(logit, 1))))));
  return h("div", { class: "vocabulary" }, column("Says next", feature.promoted, "up"), column("Avoids", feature.suppressed, "down"));
}

// Background strength in percent. The gap in the middle keeps text readable on both sides of the change of its colour.
const HOT = 550;
const heatOf = (strength) => Math.round(strength > HOT ? 66 + (30 * (strength - HOT)) / (1000 - HOT) : 12 + (30 * strength) / HOT);

// For each piece that ends a character which is cut over several pieces, that character: bytes alone cannot be read.
function wholes(pieces) {
  let bytes = [], need = 0;
  return pieces.map((piece) => {
    let found = null;
    if (!piece.includes("<0x")) need = 0;
    else for (const [, byte] of piece.matchAll(/<0x([0-9A-F]{2})>|[^<]+|</g)) {
      const value = byte === undefined ? 0 : parseInt(byte, 16), lead = value >= 0xc2 && value <= 0xf4 ? (value < 0xe0 ? 2 : value < 0xf0 ? 3 : 4) : 0;
      if (lead) { bytes = [value]; need = lead; } else if (need && value >= 0x80 && value < 0xc0) bytes.push(value); else need = 0;
      if (!need || bytes.length < need) continue;
      need = 0;
      const letter = new TextDecoder().decode(new Uint8Array(bytes));
      if (/[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(letter) && !letter.includes("\ufffd")) found = (found ?? "") + letter;
    }
    return found;
  });
}

function example(snippet, feature) {
  const [start, length, focus, documentId, active] = snippet;
  const strength = new Array(length).fill(0);
  for (let i = 0; i < active.length; i += 2) strength[active[i]] = active[i + 1];
  const text = h("p", { tabindex: "0", onkeydown: walkTokens, onfocusin: (event) => { if (event.target.matches(":focus-visible")) walk(event.target, 0); }, onfocusout: stopWalking });
  let quiet = "";
  const pieces = Array.from({ length }, (_, i) => data.pieces[data.tokens[start + i]]), whole = wholes(pieces);
  for (let i = 0; i < length; i++) {
    const piece = pieces[i];
    if (!strength[i] && whole[i]) { text.append(quiet, h("span", { "data-whole": whole[i] }, piece)); quiet = ""; continue; }
    if (!strength[i]) { quiet += i ? piece : piece.trimStart(); continue; }
    const body = piece.trimStart(), value = (strength[i] / 1000) * feature.maximum;
    text.append(quiet + (i ? piece.slice(0, piece.length - body.length) : ""));
    quiet = "";
    const token = h("mark", { class: strength[i] > HOT ? "hot" : null, "data-tip": `${short(value)} · ${percent(strength[i] / 1000)} of maximum`, "data-whole": whole[i] ?? null }, body || piece);
    token.style.setProperty("--heat", `${heatOf(strength[i])}%`);
    if (i === focus) token.classList.add("focus");
    text.append(token);
  }
  text.append(quiet);
  const value = (strength[focus] / 1000) * feature.maximum;
  return h("li", { title: `document ${documentId}` }, h("span", { class: "strength" }, short(value)), text);
}

document.addEventListener("pointerover", (event) => {
  const token = event.target.closest && event.target.closest("mark[data-tip]");
  if (token) showTip(token, token.dataset.tip); else if (!document.querySelector("mark.walked")) hideTip();
});
addEventListener("scroll", hideTip, { capture: true, passive: true });

// With the focus on an example, the arrow keys go from active token to active token.
function walk(paragraph, step) {
  const tokens = [...paragraph.querySelectorAll("mark")], at = tokens.findIndex((token) => token.classList.contains("walked"));
  if (!tokens.length) return;
  const strongest = tokens.findIndex((token) => token.classList.contains("focus"));
  const to = at < 0 ? Math.max(strongest, 0) : Math.min(Math.max(at + step, 0), tokens.length - 1);
  if (at >= 0) tokens[at].classList.remove("walked");
  tokens[to].classList.add("walked");
  showTip(tokens[to], `${tokens[to].textContent.trim()}: ${tokens[to].dataset.tip}`);
}
function walkTokens(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (step) { event.preventDefault(); walk(event.currentTarget, step); }
  if (event.key === "Escape") stopWalking(event);
}
function stopWalking(event) {
  for (const token of event.currentTarget.querySelectorAll("mark.walked")) token.classList.remove("walked");
  hideTip();
}

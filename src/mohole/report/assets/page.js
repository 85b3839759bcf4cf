// The page as a whole: header, hookpoint switch, steering, footer, and the address of what is shown.

const SECTIONS = [["quality", "Quality"], ["recovery", "Planted concepts"], ["features", "Features"], ["steering", "Steering"], ["foot", "Numbers"]];

function drawHead() {
  const run = data.run, first = data.hookpoints[0], n = data.hookpoints.length;
  byId("head").append(
    h("p", { class: "brand" }, drill(), "mohole"),
    h("h1", {}, run.name),
    h("p", { class: "lead" }, h("b", {}, run.model), `, taken apart into ${n === 1 ? "a dictionary" : `${n} dictionaries`} of ${count(first.n_latents)} latents at ${data.hookpoints.map((place) => place.hookpoint).join(", ")}.`),
    h("dl", { class: "facts" },
      h("dt", {}, "text"), h("dd", {}, `${run.corpus}: ${count(run.n_tokens)} tokens in ${count(run.n_documents)} documents, ${percent(run.held_out)} of them held out`),
      h("dt", {}, "dictionary"), h("dd", {}, `${count(first.n_latents)} latents over ${count(first.d_model)} dimensions, ${first.nonlinearity}`),
      h("dt", {}, "windows"), h("dd", {}, `${count(run.context)} tokens`), h("dt", {}, "seed"), h("dd", {}, run.seed)));
}
const drill = () => s("svg", { viewBox: "0 0 20 20", width: 20, height: 20, "aria-hidden": "true" }, s("path", { d: "M2 6h16M4 10h12M6.5 14h7", class: "strata" }), s("path", { d: "M10 1v18", class: "bore" }));

function drawBar() {
  const links = SECTIONS.filter(([id]) => !byId(id).hidden).map(([id, title]) => h("a", { href: `#${id}` }, title));
  const choices = data.hookpoints.map((place, i) => h("label", {}, h("input", { type: "radio", name: "hookpoint", value: place.hookpoint, checked: i === 0, onchange: () => show(place) }), h("span", {}, place.hookpoint)));
  byId("bar").replaceChildren(h("div", { class: "wide" }, h("div", { class: "links" }, links),
    choices.length > 1 ? h("fieldset", {}, h("legend", {}, "hookpoint"), choices) : null));
}

function show(place, latent) {
  const radio = document.querySelector(`#bar input[value="${CSS.escape(place.hookpoint)}"]`);
  if (radio) radio.checked = true;
  browse.selected = place.features.find((feature) => feature.latent === latent) || null;
  if (browse.selected) browse.query = "";
  drawQuality(place); drawRecovery(place); drawFeatures(place);
}

function drawSteering() {
  const shown = data.steering, root = byId("steering");
  if (!shown) return;
  root.hidden = false;
  const place = data.hookpoints.find((other) => other.hookpoint === shown.hookpoint);
  const known = place && place.features.some((feature) => feature.latent === shown.latent);
  const name = `${shown.hookpoint} / latent ${shown.latent}`;
  const fired = shown.generations.reduce((sum, item) => sum + item.n_fired, 0), ran = shown.generations.reduce((sum, item) => sum + item.n_tokens, 0);
  root.append(
    h("h2", { id: "steering-title" }, "Steering ", h("small", {}, "the same prompt, with one feature held fixed")),
    h("p", { class: "lead" }, "Feature ", h("b", {}, h("bdi", {}, shown.label)), " (", known ? h("a", { href: `#/${shown.hookpoint}/${shown.latent}` }, name) : name, `) is held at ${short(shown.times_max)} × the largest activation seen on the text (${short(shown.maximum)}), at every token (of text; a begin-of-text token is left alone). `,
      `The rest of each activation, what the dictionary does not explain included, is left as it was. The clamp fired at ${count(fired)} of ${count(ran)} tokens. Encoded again, the moved activation reads the held value (within 5 %) at ${percent(shown.reads_back)} of the prompts' tokens: other latents overlap. Chosen: ${shown.chosen_by}.`),
    ...shown.generations.map((item) => h("article", { class: "steer" },
      h("h3", { class: "prompt" }, h("span", {}, "prompt"), h("bdi", {}, item.prompt)),
      h("div", { class: "sides" },
        h("div", {}, h("h4", {}, "as the model is"), h("p", {}, h("bdi", {}, item.plain.trimStart()))),
        h("div", { class: "held" }, h("h4", {}, "with the feature held"), h("p", {}, h("bdi", {}, item.steered.trimStart())))))));
}

function drawFoot() {
  byId("foot").append(
    h("h2", {}, "How the numbers are made"),
    h("ul", {},
      h("li", {}, `Documents are split once, by a keyed hash: ${percent(data.run.held_out)} are never trained on, and the quality figures come from them. Intervals are 95 %, over resampled documents.`),
      h("li", {}, "A feature's density, maximum and examples come from the catalogue's sample of whole documents. At most one example is shown of a document, and identical documents count once. Intervals are half-open: the lower edge belongs to the interval below."),
      h("li", {}, `A label is a rule found on some documents; its F1 is measured on others, for activations above ${percent(data.run.firing_share)} of the latent's maximum. “Says next” and “avoids” are the direct effect of the latent's direction on the vocabulary, later layers left out.`),
      h("li", {}, "Steering moves each activation by (c − f) along the latent's direction, f being its activation there and c the value it is held at.")),
    h("details", { class: "table" }, h("summary", {}, "The artifacts behind this page"),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Artifacts" }, h("table", {},
        h("thead", {}, h("tr", {}, ["artifact", "kind", "manifest digest (xxh3)", "mohole"].map((head) => h("th", { scope: "col" }, head)))),
        h("tbody", {}, data.artifacts.map((item) => h("tr", {}, h("th", { scope: "row" }, item.name), h("td", {}, item.kind), h("td", {}, h("code", {}, item.digest)), h("td", {}, item.code))))))),
    h("p", { class: "made" }, `Made by mohole ${data.run.code}. This file holds everything it shows and asks nothing of the network.`));
}

function follow() {
  const [, hookpoint, latent] = decodeURIComponent(location.hash).match(/^#\/(.+)\/(\d+)$/) || [];
  const place = data.hookpoints.find((other) => other.hookpoint === hookpoint);
  if (place) { show(place, Number(latent)); byId("features").scrollIntoView(); }
  return Boolean(place);
}

drawHead();
drawSteering();
drawFoot();
if (!follow()) show(data.hookpoints[0]);
drawBar();
show(browse.place, browse.selected && browse.selected.latent);
addEventListener("hashchange", follow);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
  event.preventDefault();
  byId("search").focus();
});

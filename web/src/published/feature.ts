// One feature out of its block: what src/mohole/publish/evidence.py wrote, as the server would tell it.
import type { ExampleFacts, FamilyFacts, FeatureFacts, FeatureLine, LabelFacts, Piece } from "../facts";
import type { Columns, Numbers } from "./columns";
import type { Entry } from "./header";
import { STATUSES } from "./lines";

export const FEATURES_PER_BLOCK = 32, FAMILIES_PER_BLOCK = 32;
const TOP = -1;

export interface Place { hookpoint: string; nTokens: number; nPromoted: number }

export function featureOf(place: Place, latent: number, { count, sum: total, maximum }: Entry, block: Columns, family: FamilyFacts | null): FeatureFacts {
  const row = latent % FEATURES_PER_BLOCK, examples = examplesOf(block, row, maximum);
  const ofInterval = (number: number): ExampleFacts[] => examples.filter(({ interval }) => interval === number).map(({ example }) => example);
  const bins = rowOf(block.get("histogram"), row, block), widths = rowOf(block.get("interval_count"), row, block);
  const label = (at: number): string => block.text("label_text", at);
  return {
    latent, hookpoint: place.hookpoint, label: labelOf(block, row), count, n_tokens: place.nTokens, density: count / place.nTokens, maximum,
    mean: total / Math.max(count, 1), is_dead: count === 0,
    histogram: count ? { edges: edges(maximum, bins.length), counts: bins } : null,
    top: ofInterval(TOP),
    intervals: count ? widths.map((n, i) => ({ low: edges(maximum, widths.length)[i]!, high: edges(maximum, widths.length)[i + 1]!, count: n, examples: ofInterval(i) })) : [],
    promoted: piecesOf(block, row, 0, place.nPromoted), suppressed: piecesOf(block, row, place.nPromoted, 2 * place.nPromoted),
    neighbours: others(block, row, "neighbour").map(([other, at]) => ({ latent: other, label: label(block.get("neighbour_label")[at]!), cosine: block.get("cosine")[at]! })),
    together: others(block, row, "together").map(([other, at]) => ({ latent: other, label: label(block.get("together_label")[at]!), n_together: block.get("n_together")[at]!, phi: block.get("phi")[at]! })),
    family,
  };
}

/** A family with its members' lines, out of a block of `families`. */
export function familyOf(family: number, nTokens: number, block: Columns): FamilyFacts {
  const row = family % FAMILIES_PER_BLOCK, nMembers = block.get("n_members"), first = sum(nMembers, 0, row);
  const members = Array.from({ length: nMembers[row]! }, (_, i): FeatureLine => {
    const at = first + i, f1 = block.get("f1")[at]!, count = block.get("count")[at]!;
    return { latent: block.get("latent")[at]!, label: block.text("label", at), status: STATUSES[block.get("status")[at]!]!, f1: orNull(f1), count, density: count / nTokens, maximum: block.get("maximum")[at]!, family };
  });
  return { family, size: block.get("size")[row]!, members };
}

function labelOf(block: Columns, row: number): LabelFacts {
  const [f1, precision, recall] = rowOf(block.get("label_score"), row, block).map(orNull);
  const [positive, scored] = rowOf(block.get("label_count"), row, block).map((n) => (n < 0 ? null : n));
  return {
    text: block.text("label_text", block.get("label")[row]!), status: STATUSES[block.get("label_status")[row]!]!, kind: block.text("label_text", block.get("label_kind")[row]!),
    f1: f1 ?? null, precision: precision ?? null, recall: recall ?? null, n_positive: positive ?? null, n_scored: scored ?? null,
  };
}

function examplesOf(block: Columns, row: number, maximum: number): { interval: number; example: ExampleFacts }[] {
  const nExamples = block.get("n_examples"), first = sum(nExamples, 0, row), last = first + nExamples[row]!;
  const lengths = block.get("example_length"), nFirings = block.get("n_firings"), places = block.get("firing_place"), shares = block.get("firing_share");
  const texts = block.get("text_piece"), upper = block.get("text_piece_256");
  let text = sum(lengths, 0, first), firing = sum(nFirings, 0, first);
  return Array.from({ length: last - first }, (_, i) => {
    const e = first + i, length = lengths[e]!, activations = new Array<number>(length).fill(0);
    for (const end = firing + nFirings[e]!; firing < end; firing++) activations[places[firing]!] = shares[firing]! * maximum;
    const tokens = Array.from({ length }, (_, j) => block.text("piece", texts[text + j]! + 256 * upper[text + j]!));
    text += length;
    const edge = block.get("example_edges")[e]!;
    return {
      interval: block.get("example_interval")[e]!,
      example: { document: block.get("example_document")[e]!, token: block.get("example_token")[e]!, at: block.get("example_before")[e]!, tokens, activations, begins_document: (edge & 1) > 0, ends_document: (edge & 2) > 0 },
    };
  });
}

function piecesOf(block: Columns, row: number, first: number, last: number): Piece[] {
  const ids = rowOf(block.get("vocabulary_piece"), row, block).slice(first, last), logits = rowOf(block.get("vocabulary_logit"), row, block).slice(first, last);
  return ids.flatMap((id, i) => (id < 0 ? [] : [{ token: block.text("piece", id), logit: logits[i]! }]));
}

/** (latent, place in the column) of those that a row names. */
function others(block: Columns, row: number, name: string): [number, number][] {
  const width = widthOf(block.get(name), block);
  return rowOf(block.get(name), row, block).flatMap((latent, i): [number, number][] => (latent < 0 ? [] : [[latent, row * width + i]]));
}

const widthOf = (column: Numbers, block: Columns): number => column.length / block.get("n_examples").length;
const rowOf = (column: Numbers, row: number, block: Columns): number[] => Array.from(column.subarray(row * widthOf(column, block), (row + 1) * widthOf(column, block)));
const edges = (maximum: number, n: number): number[] => Array.from({ length: n + 1 }, (_, i) => (i === n ? maximum : (maximum * i) / n));
const orNull = (value: number): number | null => (Number.isNaN(value) ? null : value);

function sum(column: Numbers, first: number, last: number): number {
  let total = 0;
  for (let i = first; i < last; i++) total += column[i]!;
  return total;
}

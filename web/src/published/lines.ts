// All features as lines: sorted, filtered, searched and laid out in the browser, as the server does it. The columns of a dictionary
// are fetched whole for that, once, which is meant for a million latents at most; a list by number alone needs none of them.
import { ApiError, type FeatureLine, type FeaturePage, type FeatureQuery, type SearchHit, type Status } from "../facts";
import type { Columns } from "./columns";
import type { Folder } from "./folder";
import { entries } from "./header";
import { kept, Table } from "./table";

export const STATUSES: readonly Status[] = ["good", "partial", "none", "few", "dead", "person"];
const NAMED: ReadonlySet<Status> = new Set<Status>(["good", "partial", "person"]); // the others' labels say only that there is no name
export const MOST_LATENTS = 1 << 20;
const LATENTS_OF_LINES = 512, LATENTS_OF_COLUMNS = 65_536;

interface Whole { count: Float64Array; maximum: Float32Array; family: Int32Array; labelRank: Uint32Array; status: Uint8Array; f1: Float64Array }

interface Mapped { bounds: [number, number, number, number]; bytes: ArrayBuffer }

export class Lines {
  private readonly lines: Table;
  private readonly columns: Table;
  private readonly places: Table;
  private made: Promise<Whole> | undefined;
  private folded: Promise<string[]> | undefined;
  private mapped: Promise<Mapped> | undefined;
  private orders = new Map<string, Uint32Array>();

  constructor(private readonly folder: Folder, private readonly hookpoint: string, private readonly n: number, private readonly nTokens: number) {
    this.lines = new Table(folder, "lines", n, LATENTS_OF_LINES);
    this.columns = new Table(folder, "columns", n, LATENTS_OF_COLUMNS);
    this.places = new Table(folder, "places", n, LATENTS_OF_COLUMNS);
  }

  async page(query: FeatureQuery, signal?: AbortSignal): Promise<FeaturePage> {
    const { offset, limit, sort = "latent", descending = false } = query;
    if (sort === "latent" && query.which === "all" && !query.q && !query.status && !query.least_density && !query.most_density && !query.least_f1 && !query.family && query.family !== 0) {
      const shown = Math.max(0, Math.min(limit, this.n - offset)), first = descending ? this.n - offset - shown : offset;
      const features = await this.byNumber(first, first + shown, signal);
      return { total: this.n, offset, features: descending ? features.reverse() : features };
    }
    const order = await this.select({ ...query, sort, descending });
    return { total: order.length, offset, features: await this.some(order.subarray(offset, offset + limit)) };
  }

  /** Labels with the words of a query in them, in any order; not by meaning, nor misspelt: that takes the server. */
  async search(q: string, limit: number): Promise<SearchHit[]> {
    const wanted = fold(q.trim()), words = wanted.split(/\s+/).filter(Boolean);
    const texts = await this.foldedTexts(), { status } = await this.whole(), found: { latent: number; score: number }[] = [];
    if (!words.length) return [];
    texts.forEach((text, latent) => { if (NAMED.has(STATUSES[status[latent]!]!) && words.every((word) => text.includes(word))) found.push({ latent, score: likeness(text, wanted, words) }); });
    found.sort((a, b) => b.score - a.score || a.latent - b.latent);
    const best = found.slice(0, limit), features = await this.some(best.map((hit) => hit.latent));
    return features.map((feature, i) => ({ feature, score: best[i]!.score, why: `label: “${q.trim()}”` }));
  }

  /** The columns of the map, as the server sends them. */
  map(): Promise<Mapped> {
    this.mapped ??= kept(this.makeMap(), () => { this.mapped = undefined; });
    return this.mapped;
  }

  private async makeMap(): Promise<Mapped> {
    const whole = await this.whole(), places = await this.places.whole(), n = this.n;
    const bytes = new ArrayBuffer(20 * n), x = new Float32Array(bytes, 0, n), y = new Float32Array(bytes, 4 * n, n);
    fill(x, places, "x");
    fill(y, places, "y");
    new Float32Array(bytes, 8 * n, n).set(whole.count.map((count) => (count ? Math.log10(count / this.nTokens) : NaN)));
    new Float32Array(bytes, 12 * n, n).set(whole.f1);
    new Int32Array(bytes, 16 * n, n).set(whole.family);
    const bounds: [number, number, number, number] = [Infinity, Infinity, -Infinity, -Infinity];
    for (let i = 0; i < n; i++) {
      if (!Number.isFinite(x[i]) || !Number.isFinite(y[i])) continue;
      bounds[0] = Math.min(bounds[0], x[i]!); bounds[1] = Math.min(bounds[1], y[i]!);
      bounds[2] = Math.max(bounds[2], x[i]!); bounds[3] = Math.max(bounds[3], y[i]!);
    }
    return { bounds: bounds[0] <= bounds[2] ? bounds : [0, 0, 0, 0], bytes };
  }

  /** Latents [first, last): from the header and the blocks of lines that hold them. */
  private async byNumber(first: number, last: number, signal?: AbortSignal): Promise<FeatureLine[]> {
    if (this.made) return this.some(Array.from({ length: last - first }, (_, i) => first + i)); // they are here
    const numbers = Array.from({ length: Math.ceil(last / LATENTS_OF_LINES) - Math.floor(first / LATENTS_OF_LINES) }, (_, i) => Math.floor(first / LATENTS_OF_LINES) + i);
    const [found, blocks] = await Promise.all([entries(this.folder, first, last, signal), Promise.all(numbers.map((number) => this.lines.block(number)))]);
    return found.map(({ count, maximum, family }, i) => {
      const latent = first + i;
      return this.line(latent, count, maximum, family, blocks[Math.floor(latent / LATENTS_OF_LINES) - numbers[0]!]!);
    });
  }

  private async some(latents: ArrayLike<number>): Promise<FeatureLine[]> {
    const whole = await this.whole(), blocks = await this.lines.whole();
    return Array.from(latents, (latent) => this.line(latent, whole.count[latent]!, whole.maximum[latent]!, whole.family[latent]!, blocks[Math.floor(latent / LATENTS_OF_LINES)]!));
  }

  private line(latent: number, count: number, maximum: number, family: number, block: Columns): FeatureLine {
    const row = latent % LATENTS_OF_LINES, f1 = block.get("f1")[row]!;
    return {
      latent, label: block.text("label", row), status: STATUSES[block.get("status")[row]!]!, f1: Number.isNaN(f1) ? null : f1,
      count, density: count / this.nTokens, maximum, family: family < 0 ? null : family,
    };
  }

  private async whole(): Promise<Whole> {
    if (this.n > MOST_LATENTS) {
      throw new ApiError(0, `${this.hookpoint} has ${this.n.toLocaleString("en")} latents, too many to sort, search or map in a browser (${MOST_LATENTS.toLocaleString("en")} at most).`, "Order the list by latent and show all of them: that needs no more than what is seen. `mohole serve RUN` sorts and searches any number.");
    }
    this.made ??= kept(this.make(), () => { this.made = undefined; });
    return this.made;
  }

  private async make(): Promise<Whole> {
    const [lines, columns] = await Promise.all([this.lines.whole(), this.columns.whole()]), n = this.n;
    return {
      count: fill(new Float64Array(n), columns, "count"), maximum: fill(new Float32Array(n), columns, "maximum"), family: fill(new Int32Array(n), columns, "family"),
      labelRank: fill(new Uint32Array(n), columns, "label_rank"), status: fill(new Uint8Array(n), lines, "status"), f1: fill(new Float64Array(n), lines, "f1"),
    };
  }

  private foldedTexts(): Promise<string[]> {
    this.folded ??= kept(this.whole().then(() => this.lines.whole()).then((blocks) => blocks.flatMap((block) => Array.from(block.get("status"), (_, row) => fold(block.text("label", row))))), () => { this.folded = undefined; });
    return this.folded;
  }

  private async select(query: FeatureQuery): Promise<Uint32Array> {
    const { sort = "latent", descending = false, q, which = "alive", status, least_density, most_density, least_f1, family } = query;
    const key = JSON.stringify([sort, descending, q, which, status, least_density, most_density, least_f1, family]);
    const whole = await this.whole(), known = this.orders.get(key);
    if (known) return known;
    const texts = q ? await this.foldedTexts() : null, wanted = q ? fold(q) : "", number = q && /^\d{1,18}$/.test(q) ? Number(q) : -1;
    const passes = (i: number): boolean => {
      const count = whole.count[i]!, density = count / this.nTokens;
      if (which !== "all" && (count === 0) !== (which === "dead")) return false;
      if (status && STATUSES[whole.status[i]!] !== status) return false;
      if (least_density && !(density >= Number(least_density))) return false;
      if (most_density && !(density <= Number(most_density))) return false;
      if (least_f1 && !(Math.fround(whole.f1[i]!) >= Math.fround(Number(least_f1)))) return false;
      if (family !== undefined && family !== "" && whole.family[i] !== Number(family)) return false;
      return !texts || i === number || texts[i]!.includes(wanted);
    };
    const order = sorted(whole, this.n, sort, descending).filter(passes);
    if (this.orders.size >= 8) this.orders.delete(this.orders.keys().next().value!);
    this.orders.set(key, order);
    return order;
  }
}

/** All latents by one column, ties by number; what has no F1 last either way, and labels by hand after it. */
function sorted(whole: Whole, n: number, sort: string, descending: boolean): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i), sign = descending ? -1 : 1;
  if (sort === "latent") return descending ? order.reverse() : order;
  if (sort === "label") return order.sort((a, b) => sign * (whole.labelRank[a]! - whole.labelRank[b]!));
  if (sort === "f1") {
    const group = (i: number): number => (whole.status[i] === STATUSES.indexOf("person") ? 2 : Number.isNaN(whole.f1[i]!) ? 1 : 0);
    return order.sort((a, b) => group(a) - group(b) || sign * (Math.fround(whole.f1[a]!) - Math.fround(whole.f1[b]!)) || a - b);
  }
  const column = sort === "density" ? whole.count : whole.maximum;
  return order.sort((a, b) => sign * (column[a]! - column[b]!) || a - b);
}

/** As Python's casefold in all but rare letters: ß is ss, and case does not matter. */
export const fold = (text: string): string => text.toUpperCase().toLowerCase();

/** 1: the label is the query; then labels that begin with it, have it as words, have its words; short ones first. */
function likeness(text: string, wanted: string, words: string[]): number {
  if (text === wanted) return 1;
  const own = new Set(text.split(/[^\p{L}\p{M}\p{N}]+/u)), share = wanted.length / Math.max(text.length, 1);
  const kind = text.startsWith(wanted) ? 3 : words.every((word) => own.has(word)) ? 2 : text.includes(wanted) ? 1 : 0;
  return (kind + 0.99 * Math.min(share, 1)) / 4;
}

function fill<T extends Float64Array | Float32Array | Int32Array | Uint32Array | Uint8Array>(into: T, blocks: Columns[], name: string): T {
  let at = 0;
  for (const block of blocks) {
    const column = block.get(name);
    into.set(column, at);
    at += column.length;
  }
  return into;
}

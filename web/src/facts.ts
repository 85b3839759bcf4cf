// What the pages are made of: src/mohole/serve/shapes.py written in TypeScript, and the questions a source of them answers.

export type Sort = "latent" | "density" | "maximum" | "f1" | "label";
export type Which = "alive" | "dead" | "all";
export type Status = "good" | "partial" | "none" | "few" | "dead" | "person";
export type SearchBy = "label" | "token" | "text";

export interface HookpointFacts { hookpoint: string; n_latents: number; n_dead: number; n_labelled: number; n_tokens: number; n_documents: number; n_counted_together: number; firing_share: number | null }
export interface RunFacts { run: string; model: string; hookpoints: HookpointFacts[]; can_xray: boolean }
/** Of a published folder: tokens of text on either side of an example's token (null: as its catalogue keeps them). */
export interface PublishedFacts { context_tokens: number | null }
export interface Runs { version: string; can_write: boolean; runs: RunFacts[]; published?: PublishedFacts }

export interface LabelFacts {
  text: string; status: Status; kind: string;
  f1: number | null; precision: number | null; recall: number | null; n_positive: number | null; n_scored: number | null;
}
export interface FeatureLine {
  latent: number; label: string; status: string; f1: number | null; count: number; density: number; maximum: number; family: number | null;
}
export interface FeaturePage { total: number; offset: number; features: FeatureLine[] }
export interface Piece { token: string; logit: number }
export interface ExampleFacts {
  document: number; token: number; at: number; tokens: string[]; activations: number[]; begins_document: boolean; ends_document: boolean;
}
export interface IntervalFacts { low: number; high: number; count: number; examples: ExampleFacts[] }
export interface HistogramFacts { edges: number[]; counts: number[] }
export interface Neighbour { latent: number; label: string; cosine: number }
export interface Together { latent: number; label: string; n_together: number; phi: number }
export interface FamilyFacts { family: number; size: number; members: FeatureLine[] }
export interface Match { latent: number; label: string; cosine: number; correlation: number | null }
export interface DictionaryMatches {
  run: string; hookpoint: string; n_latents: number; is_same_model: boolean; chance: number | null; matches: Match[]; left_out: string | null;
}
export interface LogitChange { token: string; logit: number; probability: number; probability_without: number }
export interface EffectFacts {
  document: number; token: number; start: number; tokens: string[]; activations: number[]; loss: (number | null)[];
  loss_change: (number | null)[]; loss_change_random: (number | null)[]; promoted: LogitChange[]; suppressed: LogitChange[]; n_removed: number;
}
export interface FeatureFacts {
  latent: number; hookpoint: string; label: LabelFacts; count: number; n_tokens: number; density: number; maximum: number; mean: number;
  is_dead: boolean; histogram: HistogramFacts | null; top: ExampleFacts[]; intervals: IntervalFacts[]; promoted: Piece[]; suppressed: Piece[];
  neighbours: Neighbour[]; together: Together[]; family: FamilyFacts | null;
}

export interface XrayFeature { latent: number; label: string; activation: number; of_maximum: number | null }
export interface XrayToken { token: string; features: XrayFeature[] }
export interface Xray { hookpoint: string; tokens: XrayToken[]; strongest: XrayFeature[]; along: number[] | null }

export interface SearchHit { feature: FeatureLine; score: number; why: string }
export interface SearchAnswer { query: string; by: SearchBy; hits: SearchHit[] }
export interface TileFacts { columns: [string, "float32" | "int32"][]; square: [number, number, number]; shares: number[]; most: number }
export interface MapFacts { n: number; bounds: [number, number, number, number]; columns: [string, "float32" | "int32" | "uint8"][]; tiles: TileFacts | null }
export interface MapPlace { latent: number; x: number; y: number }
export interface ListLine { name: string; n_members: number; is_in: boolean }
export interface FeatureList { name: string; members: [string, number][] }
export interface ListPage { name: string; total: number; offset: number; members: { hookpoint: string; feature: FeatureLine }[] }
export interface Note { note: string; hookpoint: string; latent: number; text: string; written: string }

export interface Curve { name: string; steps: number[]; values: (number | null)[] }
export interface MeasureFacts { name: string; value: number | null; unit: string; low: number | null; high: number | null; n: number; baseline: string; definition: string }
export interface ArtifactFacts { name: string; kind: string; digest: string; code: string; seed: number; parents: Record<string, string>; config: Record<string, unknown> }
export interface RunPage {
  run: RunFacts; curves: Record<string, Curve[]>; measures: Record<string, MeasureFacts[]>; costs: [string, number, number][]; artifacts: ArtifactFacts[];
}

/** A refusal in the server's own words, with what to do next where it knows. */
export class ApiError extends Error {
  constructor(readonly status: number, message: string, readonly nextStep: string | null) {
    super(message);
  }
}

/** A page of a list, and what is to be in it. */
export interface FeatureQuery {
  offset: number; limit: number; sort?: Sort; descending?: boolean; q?: string; which?: Which; status?: string;
  least_density?: string; most_density?: string; least_f1?: string; family?: string | number;
}

/** Where facts come from: a server, or a published folder. Every method fails with an ApiError. */
export interface Source {
  getRuns(): Promise<Runs>;
  getRun(run: string): Promise<RunPage>;
  getFeatures(run: string, hookpoint: string, query: FeatureQuery, signal?: AbortSignal): Promise<FeaturePage>;
  getFeature(run: string, hookpoint: string, latent: number): Promise<FeatureFacts>;
  getContext(run: string, hookpoint: string, latent: number, token: number, before: number, after: number): Promise<ExampleFacts>;
  getMap(run: string, hookpoint: string): Promise<MapFacts>;
  getMapPoints(run: string, hookpoint: string): Promise<ArrayBuffer>;
  getMapTile(run: string, hookpoint: string, z: number, x: number, y: number): Promise<ArrayBuffer>;
  getMapPlaces(run: string, hookpoint: string, latents: number[]): Promise<MapPlace[]>;
  getSearch(run: string, hookpoint: string, q: string, by: SearchBy, limit: number, signal?: AbortSignal): Promise<SearchAnswer>;
  postXray(run: string, hookpoint: string, text: string, top: number, latent: number | null): Promise<Xray>;
  putLabel(run: string, hookpoint: string, latent: number, text: string): Promise<unknown>;
  deleteLabel(run: string, hookpoint: string, latent: number): Promise<unknown>;
  getNotes(run: string, hookpoint: string, latent: number): Promise<Note[]>;
  postNote(run: string, hookpoint: string, latent: number, text: string): Promise<Note>;
  deleteNote(run: string, note: string): Promise<unknown>;
  getEffect(run: string, hookpoint: string, latent: number, token: number): Promise<EffectFacts>;
  getMatches(run: string, hookpoint: string, latent: number): Promise<DictionaryMatches[]>;
  getLists(run: string): Promise<FeatureList[]>;
  getList(run: string, name: string): Promise<FeatureList>;
  getListPage(run: string, name: string, offset: number, limit: number): Promise<ListPage>;
  getListsOf(run: string, hookpoint: string, latent: number): Promise<ListLine[]>;
  putMember(run: string, name: string, hookpoint: string, latent: number): Promise<unknown>;
  deleteMember(run: string, name: string, hookpoint: string, latent: number): Promise<unknown>;
  putList(run: string, name: string, members: [string, number][]): Promise<FeatureList>;
  deleteList(run: string, name: string): Promise<unknown>;
}

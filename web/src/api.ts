// The HTTP API as the app sees it: src/mohole/serve/shapes.py written in TypeScript, and how it is asked.

export type Sort = "latent" | "density" | "maximum" | "f1" | "label";
export type Which = "alive" | "dead" | "all";
export type Status = "good" | "partial" | "none" | "few" | "dead" | "person";
export type SearchBy = "label" | "token" | "text";

export interface HookpointFacts { hookpoint: string; n_latents: number; n_dead: number; n_labelled: number; n_tokens: number; n_documents: number }
export interface RunFacts { run: string; model: string; hookpoints: HookpointFacts[]; can_xray: boolean }
export interface Runs { version: string; can_write: boolean; runs: RunFacts[] }

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
export interface Match { run: string; hookpoint: string; latent: number; label: string; cosine: number }
export interface FeatureFacts {
  latent: number; hookpoint: string; label: LabelFacts; count: number; n_tokens: number; density: number; maximum: number; mean: number;
  is_dead: boolean; histogram: HistogramFacts | null; top: ExampleFacts[]; intervals: IntervalFacts[]; promoted: Piece[]; suppressed: Piece[];
  neighbours: Neighbour[]; together: Together[]; family: FamilyFacts | null; matches: Match[];
}

export interface XrayFeature { latent: number; label: string; activation: number; of_maximum: number | null }
export interface XrayToken { token: string; features: XrayFeature[] }
export interface Xray { hookpoint: string; tokens: XrayToken[]; strongest: XrayFeature[]; along: number[] | null }

export interface SearchHit { feature: FeatureLine; score: number; why: string }
export interface SearchAnswer { query: string; by: SearchBy; hits: SearchHit[] }
export interface MapFacts { n: number; bounds: [number, number, number, number]; columns: [string, "float32" | "int32" | "uint8"][] }
export interface Note { note: string; hookpoint: string; latent: number; text: string; written: string }

export interface Curve { name: string; steps: number[]; values: (number | null)[] }
export interface MeasureFacts { name: string; value: number | null; unit: string; low: number | null; high: number | null; n: number; baseline: string }
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

const BASE = new URL("api/v1/", document.baseURI);
const path = (...parts: (string | number)[]): URL => new URL(parts.map(encodeURIComponent).join("/"), BASE);

async function answer(url: URL, init: RequestInit = {}): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.", "Is `mohole serve` still running?");
  }
  if (response.ok) return response;
  const body: unknown = await response.json().catch(() => null);
  if (body && typeof body === "object" && "error" in body) {
    const { error, next_step } = body as { error: string; next_step?: string | null };
    throw new ApiError(response.status, String(error), next_step ?? null);
  }
  throw new ApiError(response.status, `The server answered ${response.status} ${response.statusText}.`, null);
}

async function get<T>(url: URL, query: Record<string, string | number | boolean | null | undefined> = {}, signal?: AbortSignal): Promise<T> {
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, String(value));
  }
  return (await (await answer(url, signal ? { signal } : {})).json()) as T;
}

// The server's token lets a person write. It is kept for this tab only.
const KEY = "mohole.token";
export const setToken = (token: string): void => (token ? sessionStorage.setItem(KEY, token) : sessionStorage.removeItem(KEY));

async function write<T>(method: "POST" | "PUT" | "DELETE", url: URL, body?: unknown): Promise<T> {
  const token = sessionStorage.getItem(KEY);
  const headers: Record<string, string> = { ...(body === undefined ? {} : { "content-type": "application/json" }), ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await answer(url, { method, headers, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await response.text();
  return (text ? JSON.parse(text) : null) as T;
}

export interface FeatureQuery {
  offset: number; limit: number; sort?: Sort; descending?: boolean; q?: string; which?: Which; status?: string;
  least_density?: string; most_density?: string; least_f1?: string; family?: string | number;
}

export const getRuns = (): Promise<Runs> => get(path("runs"));
export const getRun = (run: string): Promise<RunPage> => get(path("runs", run));
export const getFeatures = (run: string, hookpoint: string, query: FeatureQuery, signal?: AbortSignal): Promise<FeaturePage> =>
  get(path("runs", run, hookpoint, "features"), { ...query }, signal);
/** One latent's line. Sorted by number and with nothing left out, a latent is its own place in the list. */
export const getLine = async (run: string, hookpoint: string, latent: number): Promise<FeatureLine | null> =>
  (await getFeatures(run, hookpoint, { offset: latent, limit: 1, sort: "latent", which: "all" })).features[0] ?? null;
export const featureAddress = (run: string, hookpoint: string, latent: number): string => path("runs", run, hookpoint, "features", latent).href;
export const getFeature = (run: string, hookpoint: string, latent: number): Promise<FeatureFacts> => get(path("runs", run, hookpoint, "features", latent));
export const getContext = (run: string, hookpoint: string, latent: number, token: number, before: number, after: number): Promise<ExampleFacts> =>
  get(path("runs", run, hookpoint, "features", latent, "context"), { token, before, after });
export const getMap = (run: string, hookpoint: string): Promise<MapFacts> => get(path("runs", run, hookpoint, "map"));
export const getMapPoints = async (run: string, hookpoint: string): Promise<ArrayBuffer> => (await answer(path("runs", run, hookpoint, "map", "points"))).arrayBuffer();
export const postXray = (run: string, hookpoint: string, text: string, top: number, latent: number | null): Promise<Xray> =>
  write("POST", path("runs", run, hookpoint, "xray"), { text, top, latent });
export const getSearch = (run: string, hookpoint: string, q: string, by: SearchBy, limit: number, signal?: AbortSignal): Promise<SearchAnswer> =>
  get(path("runs", run, hookpoint, "search"), { q, by, limit }, signal);
export const putLabel = (run: string, hookpoint: string, latent: number, text: string): Promise<unknown> =>
  write("PUT", path("runs", run, hookpoint, "features", latent, "label"), { text });
export const deleteLabel = (run: string, hookpoint: string, latent: number): Promise<unknown> =>
  write("DELETE", path("runs", run, hookpoint, "features", latent, "label"));
export const getNotes = (run: string, hookpoint: string, latent: number): Promise<Note[]> =>
  get(path("runs", run, hookpoint, "features", latent, "notes"));
export const postNote = (run: string, hookpoint: string, latent: number, text: string): Promise<Note> =>
  write("POST", path("runs", run, hookpoint, "features", latent, "notes"), { text });
export const deleteNote = (run: string, note: string): Promise<unknown> => write("DELETE", path("runs", run, "notes", note));

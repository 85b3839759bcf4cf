// Facts from the HTTP API of `mohole serve`.
import { ApiError, type Source } from "./facts";

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

export const featureAddress = (run: string, hookpoint: string, latent: number): string => path("runs", run, hookpoint, "features", latent).href;

export const server: Source = {
  getRuns: () => get(path("runs")),
  getRun: (run) => get(path("runs", run)),
  getFeatures: (run, hookpoint, query, signal) => get(path("runs", run, hookpoint, "features"), { ...query }, signal),
  getFeature: (run, hookpoint, latent) => get(path("runs", run, hookpoint, "features", latent)),
  getContext: (run, hookpoint, latent, token, before, after) => get(path("runs", run, hookpoint, "features", latent, "context"), { token, before, after }),
  getMap: (run, hookpoint) => get(path("runs", run, hookpoint, "map")),
  getMapPoints: async (run, hookpoint) => (await answer(path("runs", run, hookpoint, "map", "points"))).arrayBuffer(),
  getMapTile: async (run, hookpoint, z, x, y) => (await answer(path("runs", run, hookpoint, "map", "tiles", z, x, y))).arrayBuffer(),
  getMapPlaces: (run, hookpoint, latents) => {
    const url = path("runs", run, hookpoint, "map", "places");
    for (const latent of latents) url.searchParams.append("latent", String(latent));
    return get(url);
  },
  postXray: (run, hookpoint, text, top, latent) => write("POST", path("runs", run, hookpoint, "xray"), { text, top, latent }),
  getSearch: (run, hookpoint, q, by, limit, signal) => get(path("runs", run, hookpoint, "search"), { q, by, limit }, signal),
  putLabel: (run, hookpoint, latent, text) => write("PUT", path("runs", run, hookpoint, "features", latent, "label"), { text }),
  deleteLabel: (run, hookpoint, latent) => write("DELETE", path("runs", run, hookpoint, "features", latent, "label")),
  getNotes: (run, hookpoint, latent) => get(path("runs", run, hookpoint, "features", latent, "notes")),
  postNote: (run, hookpoint, latent, text) => write("POST", path("runs", run, hookpoint, "features", latent, "notes"), { text }),
  deleteNote: (run, note) => write("DELETE", path("runs", run, "notes", note)),
  getEffect: (run, hookpoint, latent, token) => get(path("runs", run, hookpoint, "features", latent, "effect"), { token }),
  getMatches: (run, hookpoint, latent) => get(path("runs", run, hookpoint, "features", latent, "matches")),
  getLists: (run) => get(path("runs", run, "lists")),
  getList: (run, name) => get(path("runs", run, "lists", name)),
  getListPage: (run, name, offset, limit) => get(path("runs", run, "lists", name, "features"), { offset, limit }),
  getListsOf: (run, hookpoint, latent) => get(path("runs", run, hookpoint, "features", latent, "lists")),
  putMember: (run, name, hookpoint, latent) => write("PUT", path("runs", run, "lists", name, "members", hookpoint, latent)),
  deleteMember: (run, name, hookpoint, latent) => write("DELETE", path("runs", run, "lists", name, "members", hookpoint, latent)),
  putList: (run, name, members) => write("PUT", path("runs", run, "lists", name), { members }),
  deleteList: (run, name) => write("DELETE", path("runs", run, "lists", name)),
};

// Facts from a folder that `mohole publish` wrote, on any host that answers range requests. Nothing is asked of a server.
import { ApiError, type FamilyFacts, type HookpointFacts, type MapFacts, type RunFacts, type RunPage, type Runs, type Source } from "../facts";
import { unpack } from "./columns";
import { FAMILIES_PER_BLOCK, familyOf, featureOf, FEATURES_PER_BLOCK } from "./feature";
import { damaged, Folder, json, needsRanges } from "./folder";
import { entries } from "./header";
import { Lines } from "./lines";
import { Table } from "./table";

const FORMAT = "published 1", LATENTS_PER_FILE = 4096;
const MAP_COLUMNS: MapFacts["columns"] = [["x", "float32"], ["y", "float32"], ["log10_density", "float32"], ["f1", "float32"], ["family", "int32"]];

interface Listed extends HookpointFacts { n_promoted: number; n_families: number; has_map: boolean }
interface Index { format: string; version: string; edition: string; context_tokens: number | null; runs: (Omit<RunFacts, "hookpoints"> & { hookpoints: Listed[] })[] }
interface Opened { facts: Listed; folder: Folder; lines: Lines; families: Table }

/** The folder whose index is at this address. */
export function published(address: URL): Source {
  let opening: Promise<Index> | undefined;
  const opened = new Map<string, Opened>();
  const index = (): Promise<Index> => (opening ??= open(address).catch((error: unknown) => { opening = undefined; throw error; }));

  async function place(run: string, hookpoint: string): Promise<Opened> {
    const key = JSON.stringify([run, hookpoint]), { runs, edition } = await index(), known = opened.get(key);
    if (known) return known;
    const facts = runs.find((each) => each.run === run)?.hookpoints.find((each) => each.hookpoint === hookpoint);
    if (!facts) throw new ApiError(404, `${run} ${hookpoint}: no such hookpoint in this folder.`, "The runs are listed on the first page.");
    const folder = new Folder(new URL(`data/${encodeURIComponent(run)}/${encodeURIComponent(hookpoint)}/`, address), edition);
    const made = { facts, folder, lines: new Lines(folder, hookpoint, facts.n_latents, facts.n_tokens), families: new Table(folder, "families", facts.n_families, FAMILIES_PER_BLOCK) };
    opened.set(key, made);
    return made;
  }

  const getFeature: Source["getFeature"] = async (run, hookpoint, latent) => {
    const { facts, folder, families } = await place(run, hookpoint);
    if (latent >= facts.n_latents) throw new ApiError(404, `${hookpoint}: latent ${latent}: no such latent`, `there are 0 to ${facts.n_latents - 1}`);
    families.prepare();
    const [entry] = await entries(folder, latent, latent + 1), file = `features/${String(Math.floor(latent / LATENTS_PER_FILE)).padStart(6, "0")}.bin`;
    if (!entry?.nBytes) throw damaged(`header.bin, latent ${latent}`);
    const family = (): Promise<FamilyFacts> => families.block(Math.floor(entry.family / FAMILIES_PER_BLOCK)).then((block) => familyOf(entry.family, facts.n_tokens, block));
    const [frame, members] = await Promise.all([folder.range(file, entry.offset, entry.offset + entry.nBytes), entry.family < 0 ? null : family()]);
    const block = unpack(frame, `${file}, block of latents ${latent - (latent % FEATURES_PER_BLOCK)} on`);
    return featureOf({ hookpoint, nTokens: facts.n_tokens, nPromoted: facts.n_promoted }, latent, entry, block, members);
  };

  return {
    getRuns: async (): Promise<Runs> => {
      const { version, runs, context_tokens } = await index();
      return { version, can_write: false, runs, published: { context_tokens } };
    },
    getRun: async (run): Promise<RunPage> => {
      const { edition } = await index(), url = new URL(`data/${encodeURIComponent(run)}/run.json`, address);
      url.searchParams.set("v", edition);
      return json<RunPage>(url);
    },
    getFeatures: async (run, hookpoint, query, signal) => (await place(run, hookpoint)).lines.page(query, signal),
    getFeature,
    getContext: async (run, hookpoint, latent, token) => {
      const { top, intervals } = await getFeature(run, hookpoint, latent);
      const found = [...top, ...intervals.flatMap((interval) => interval.examples)].find((example) => example.token === token);
      if (!found) throw new ApiError(404, `Token ${token} is in none of this feature's examples, and a published folder holds no other texts.`, "`mohole serve RUN` shows every place where it fires.");
      return found;
    },
    getMap: async (run, hookpoint): Promise<MapFacts> => {
      const { lines, facts } = await place(run, hookpoint);
      if (!facts.has_map) throw new ApiError(404, `${hookpoint}: its catalogue has no map`, null);
      return { n: facts.n_latents, bounds: (await lines.map()).bounds, columns: MAP_COLUMNS, tiles: null };
    },
    getMapPoints: async (run, hookpoint) => (await (await place(run, hookpoint)).lines.map()).bytes,
    getMapTile: () => absentNow("A published folder's map comes whole: a tile of it"),
    getMapPlaces: () => absentNow("A published folder's map comes whole: single places"),
    getSearch: async (run, hookpoint, q, by, limit) => {
      if (by !== "label") throw absent(`A published folder is searched by label: finding features by ${by === "token" ? "the token they fire on" : "a text"}`);
      return { query: q, by, hits: await (await place(run, hookpoint)).lines.search(q, limit) };
    },
    getNotes: async () => [],
    postXray: () => absentNow("A published folder holds no model: reading a text"),
    putLabel: () => absentNow("A published folder is not written to: naming features"),
    deleteLabel: () => absentNow("A published folder is not written to: naming features"),
    postNote: () => absentNow("A published folder is not written to: taking notes"),
    deleteNote: () => absentNow("A published folder is not written to: taking notes"),
    getEffect: () => absentNow("A published folder holds no model: taking a feature away"),
    getMatches: () => absentNow("A published folder compares nothing: finding a feature in other dictionaries"),
    getLists: async () => [],
    getList: () => absentNow("A published folder holds no lists: reading one"),
    getListPage: () => absentNow("A published folder holds no lists: reading one"),
    getListsOf: async () => [],
    putMember: () => absentNow("A published folder is not written to: keeping lists"),
    deleteMember: () => absentNow("A published folder is not written to: keeping lists"),
    putList: () => absentNow("A published folder is not written to: keeping lists"),
    deleteList: () => absentNow("A published folder is not written to: keeping lists"),
  };
}

async function open(address: URL): Promise<Index> {
  const [index] = await Promise.all([json<Index>(address), needsRanges(address)]);
  if (index.format !== FORMAT) throw new ApiError(0, `This folder is of the format “${index.format}”; the app in it reads “${FORMAT}”.`, "Publish it again with one mohole.");
  return index;
}

const absent = (what: string): ApiError => new ApiError(501, `${what} takes \`mohole serve RUN\`.`, null);
const absentNow = (what: string): Promise<never> => Promise.reject(absent(what));

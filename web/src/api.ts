// What every page asks. Who answers is told by the page itself: `mohole publish` marks the one it writes.
import type { DictionaryMatches, EffectFacts, ExampleFacts, FeatureFacts, FeatureLine, FeaturePage, FeatureList, FeatureQuery, ListLine, ListPage, MapFacts, MapPlace, Note, RunPage, Runs, SearchAnswer, SearchBy, Source, Xray } from "./facts";
import { featureAddress as addressAtServer, server } from "./server";

export * from "./facts";
export { setToken } from "./server";

const mark = document.querySelector<HTMLMetaElement>('meta[name="mohole-published"]');
// Read only where it is needed: who is served from a server never fetches what unpacks folders.
const source: Promise<Source> = mark ? import("./published/source").then(({ published }) => published(new URL(mark.content, document.baseURI))) : Promise.resolve(server);
source.catch(() => {}); // whoever asks is told

/** Where the same facts are as JSON; null where no server has them under an address. */
export const featureAddress = (run: string, hookpoint: string, latent: number): string | null => (mark ? null : addressAtServer(run, hookpoint, latent));

export const getRuns = async (): Promise<Runs> => (await source).getRuns();
export const getRun = async (run: string): Promise<RunPage> => (await source).getRun(run);
export const getFeatures = async (run: string, hookpoint: string, query: FeatureQuery, signal?: AbortSignal): Promise<FeaturePage> =>
  (await source).getFeatures(run, hookpoint, query, signal);
/** One latent's line. Sorted by number and with nothing left out, a latent is its own place in the list. */
export const getLine = async (run: string, hookpoint: string, latent: number): Promise<FeatureLine | null> =>
  (await getFeatures(run, hookpoint, { offset: latent, limit: 1, sort: "latent", which: "all" })).features[0] ?? null;
export const getFeature = async (run: string, hookpoint: string, latent: number): Promise<FeatureFacts> => (await source).getFeature(run, hookpoint, latent);
export const getContext = async (run: string, hookpoint: string, latent: number, token: number, before: number, after: number): Promise<ExampleFacts> =>
  (await source).getContext(run, hookpoint, latent, token, before, after);
export const getMap = async (run: string, hookpoint: string): Promise<MapFacts> => (await source).getMap(run, hookpoint);
export const getMapPoints = async (run: string, hookpoint: string): Promise<ArrayBuffer> => (await source).getMapPoints(run, hookpoint);
export const getMapTile = async (run: string, hookpoint: string, z: number, x: number, y: number): Promise<ArrayBuffer> => (await source).getMapTile(run, hookpoint, z, x, y);
export const getMapPlaces = async (run: string, hookpoint: string, latents: number[]): Promise<MapPlace[]> => (await source).getMapPlaces(run, hookpoint, latents);
export const postXray = async (run: string, hookpoint: string, text: string, top: number, latent: number | null): Promise<Xray> =>
  (await source).postXray(run, hookpoint, text, top, latent);
export const getSearch = async (run: string, hookpoint: string, q: string, by: SearchBy, limit: number, signal?: AbortSignal): Promise<SearchAnswer> =>
  (await source).getSearch(run, hookpoint, q, by, limit, signal);
export const putLabel = async (run: string, hookpoint: string, latent: number, text: string): Promise<unknown> => (await source).putLabel(run, hookpoint, latent, text);
export const deleteLabel = async (run: string, hookpoint: string, latent: number): Promise<unknown> => (await source).deleteLabel(run, hookpoint, latent);
export const getNotes = async (run: string, hookpoint: string, latent: number): Promise<Note[]> => (await source).getNotes(run, hookpoint, latent);
export const postNote = async (run: string, hookpoint: string, latent: number, text: string): Promise<Note> => (await source).postNote(run, hookpoint, latent, text);
export const deleteNote = async (run: string, note: string): Promise<unknown> => (await source).deleteNote(run, note);
export const getEffect = async (run: string, hookpoint: string, latent: number, token: number): Promise<EffectFacts> =>
  (await source).getEffect(run, hookpoint, latent, token);
export const getMatches = async (run: string, hookpoint: string, latent: number): Promise<DictionaryMatches[]> => (await source).getMatches(run, hookpoint, latent);
export const getLists = async (run: string): Promise<FeatureList[]> => (await source).getLists(run);
export const getList = async (run: string, name: string): Promise<FeatureList> => (await source).getList(run, name);
export const getListPage = async (run: string, name: string, offset: number, limit: number): Promise<ListPage> => (await source).getListPage(run, name, offset, limit);
export const getListsOf = async (run: string, hookpoint: string, latent: number): Promise<ListLine[]> => (await source).getListsOf(run, hookpoint, latent);
export const putMember = async (run: string, name: string, hookpoint: string, latent: number): Promise<unknown> => (await source).putMember(run, name, hookpoint, latent);
export const deleteMember = async (run: string, name: string, hookpoint: string, latent: number): Promise<unknown> => (await source).deleteMember(run, name, hookpoint, latent);
export const putList = async (run: string, name: string, members: [string, number][]): Promise<FeatureList> => (await source).putList(run, name, members);
export const deleteList = async (run: string, name: string): Promise<unknown> => (await source).deleteList(run, name);
/** What a list may be called: its name is a part of an address. Null: it may. */
export const whyNoName = (name: string): string | null =>
  !name.trim() ? "A list needs a name." : name.length > 100 ? "A name has 100 letters at most." : /[/\\]/.test(name) ? "A name has no slash." : /^\.+$/.test(name) ? "A name is more than dots." : null;

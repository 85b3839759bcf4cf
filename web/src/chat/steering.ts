// What is done to the model, feature by feature: as a person sets it, as an address says it, as the server takes it.

export const KINDS = ["clamp", "add", "ablate", "read"] as const;
export const PARTS = ["all", "prompt", "response"] as const;
export type Kind = (typeof KINDS)[number];
export type Part = (typeof PARTS)[number];

/** One feature that is held, pushed, taken away, or only read along the text. */
export interface Setting {
  kind: Kind;
  hookpoint: string;
  latent: number;
  /** In units of the feature's maximum on the corpus; of no meaning to `ablate` and `read`. */
  times: number;
  part: Part;
}
export interface LatentName { hookpoint: string; latent: number }
/** As the server takes it: docs/steering.md. */
export type Intervention = Record<string, unknown>;

/** What a feature that nobody swept is clamped to when it is taken: more than a text ever made it, so that something is seen. */
export const STARTING_TIMES = 1.5;
/** The server reads this many along a text, at most. */
export const MOST_READ = 16;

const isOneOf = <T extends string>(values: readonly T[], value: unknown): value is T => values.includes(value as T);
export const nameOf = ({ hookpoint, latent }: LatentName): string => `${escaped(hookpoint)}*${latent}`;
export const isSame = (a: LatentName, b: LatentName): boolean => a.hookpoint === b.hookpoint && a.latent === b.latent;
export const steers = ({ kind }: Setting): boolean => kind !== "read";

function escaped(text: string): string {
  return encodeURIComponent(text).replaceAll("*", "%2A");
}
function unescaped(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** `clamp*resid_post.1*651*1.5*response`, with a space between two. Everywhere is left out. */
export const writeSettings = (settings: Setting[]): string =>
  settings.map((each) => [each.kind, nameOf(each), ...(each.kind === "read" ? [] : [each.times, ...(each.part === "all" ? [] : [each.part])])].join("*")).join(" ");

/** What can be read of it: people change addresses by hand. */
export function readSettings(text: string): Setting[] {
  const found: Setting[] = [];
  for (const entry of text.split(" ")) {
    const [kind, hookpoint = "", latent = "", times = "1", part = "all"] = entry.split("*"), strength = Number(times);
    if (!isOneOf(KINDS, kind) || !hookpoint || !/^\d{1,9}$/.test(latent) || !times || !Number.isFinite(strength) || !isOneOf(PARTS, part)) continue;
    found.push({ kind, hookpoint: unescaped(hookpoint), latent: Number(latent), times: strength, part });
  }
  return found;
}

export function readName(text: string): LatentName | null {
  const [hookpoint = "", latent = ""] = text.split("*");
  return hookpoint && /^\d{1,9}$/.test(latent) ? { hookpoint: unescaped(hookpoint), latent: Number(latent) } : null;
}

export function asInterventions(settings: Setting[]): Intervention[] {
  return settings.filter(steers).map(({ kind, hookpoint, latent, times, part }) => {
    const where = part === "all" ? {} : { where: { part } };
    if (kind === "ablate") return { kind, latent, hookpoint, ...where };
    if (kind === "add") return { kind, of: { kind: "latent", latent, hookpoint }, times_max: times, ...where };
    return { kind, latent, hookpoint, times_max: times, ...where };
  });
}

/** Interventions as sliders; null where one says more than a slider can. */
export function asSettings(interventions: Intervention[]): Setting[] | null {
  const found: Setting[] = [];
  for (const { kind, where = {}, times_max: times, ...rest } of interventions) {
    const { of = rest, ...others } = rest as { of?: Record<string, unknown> };
    const { kind: source = "latent", latent, hookpoint, ...more } = of as Record<string, unknown>;
    const { part = "all", ...window } = where as Record<string, unknown>;
    const isPlain = Object.keys(more).length + Object.keys(window).length === 0 && (of === rest || Object.keys(others).length === 0);
    if (!isPlain || !isOneOf(["clamp", "add", "ablate"] as const, kind) || source !== "latent" || !isOneOf(PARTS, part)) return null;
    if (typeof latent !== "number" || typeof hookpoint !== "string" || (kind === "ablate" ? times !== undefined : typeof times !== "number")) return null;
    found.push({ kind, hookpoint, latent, times: typeof times === "number" ? times : 0, part });
  }
  return found;
}

/** A sweep of strengths, as the server lists it; null bounds: no strength was of use. */
export interface Swept { interventions: Intervention[]; usable: { low: number | null; high: number | null } }

/** Between which strengths a clamp is of use, as a sweep of the same latent at the same tokens found it; undefined: nobody swept it. */
export function usableOf({ kind, hookpoint, latent, part }: Setting, swept: Swept[]): Swept["usable"] | undefined {
  if (kind !== "clamp") return undefined;
  return swept.find(({ interventions }) => {
    const settings = asSettings(interventions);
    const [only] = settings?.length === 1 ? settings : [];
    return only?.kind === kind && only.times === 1 && only.part === part && isSame(only, { hookpoint, latent });
  })?.usable;
}

/** A strength as it is set: 1.375 is not 1.38. */
export const written = (strength: number): string => String(Number(strength.toPrecision(6)));

/** What a sweep says of a strength, and whether that is against it; of a latent that nobody swept, nothing. */
export function judged(times: number, usable: Swept["usable"] | undefined): { said: string; isAgainst: boolean } {
  if (!usable) return { said: "", isAgainst: false };
  const { low, high } = usable;
  if (low === null || high === null) return { said: "no strength was found usable", isAgainst: true };
  const range = low === high ? `${written(low)} ×` : `${written(low)} to ${written(high)} ×`;
  if (times >= low - 1e-9 && times <= high + 1e-9) return { said: `usable at ${range}`, isAgainst: false };
  return { said: `${times < low ? "below" : "above"} what is usable, ${range}`, isAgainst: true };
}

/** What a clamp starts at when its feature is taken: the most that a sweep found usable. */
export const startingTimes = (feature: LatentName, swept: Swept[]): number =>
  usableOf({ kind: "clamp", ...feature, times: 1, part: "all" }, swept)?.high ?? STARTING_TIMES;

/** The latents whose activation is asked for at every token: all that are set, each once. */
export function readingsOf(settings: LatentName[]): LatentName[] {
  const found: LatentName[] = [];
  for (const { hookpoint, latent } of settings) if (!found.some((each) => isSame(each, { hookpoint, latent }))) found.push({ hookpoint, latent });
  return found.slice(0, MOST_READ);
}

/** Where a slider ends: twice as far once it has been let go at its end. */
export function reach(times: number): [low: number, high: number] {
  let low = -2, high = 4;
  while (times >= high && high < 1e6) high *= 2;
  while (times <= low && low > -1e6) low *= 2;
  return [low, high];
}

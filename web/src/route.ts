// What the address says: page, run, hookpoint, latent and the page's own state. Everything a person sees can be sent as a link.
//
//   #/                                     the runs
//   #/demo                                 a run
//   #/demo/lists?name=bridges              a list of its features; without a name, all lists
//   #/demo/resid_post.1/atlas?colour=f1    its map, features, x-ray
//   #/demo/resid_post.1/chat?say=Hello     its model, as it is and steered; features to steer by are looked for at this hookpoint
//   #/demo/resid_post.1/421                a feature
//
// Behind the #: the same app then works from any path of any static host.

export type Page = "runs" | "run" | "atlas" | "features" | "feature" | "xray" | "chat" | "lists" | "lost";

export interface Route {
  page: Page;
  run: string;
  hookpoint: string;
  latent: number;
  state: Record<string, string>;
}

const INSIDE = new Set(["atlas", "features", "xray", "chat"]);

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function readRoute(hash: string): Route {
  const [path = "", query = ""] = split(hash.replace(/^#/, ""), "?");
  const parts = path.split("/").filter(Boolean).map(decoded);
  const state = Object.fromEntries(new URLSearchParams(query));
  const [run = "", hookpoint = "", last = ""] = parts;
  const route = { run, hookpoint, latent: -1, state };
  if (parts.length === 0) return { ...route, page: "runs" };
  if (parts.length === 1) return { ...route, page: "run" };
  if (parts.length === 2 && hookpoint === "lists") return { ...route, hookpoint: "", page: "lists" };
  if (parts.length === 3 && INSIDE.has(last)) return { ...route, page: last as Page };
  if (parts.length === 3 && /^\d+$/.test(last)) return { ...route, page: "feature", latent: Number(last) };
  return { ...route, page: "lost" };
}

/** The address of a page. State that is empty is left out, so that one view has one address. */
export function writeRoute(route: Partial<Route> & { page: Page }): string {
  const parts: (string | number)[] = [];
  if (route.page !== "runs" && route.run) parts.push(route.run);
  if (route.page === "lists") parts.push("lists");
  else if (route.page !== "runs" && route.page !== "run") parts.push(route.hookpoint ?? "", route.page === "feature" ? (route.latent ?? 0) : route.page);
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(route.state ?? {})) if (value !== "") query.set(name, value);
  const tail = query.toString();
  return `#/${parts.map(encodeURIComponent).join("/")}${tail ? `?${tail}` : ""}`;
}

/** A whole number that the address says, or null: people change addresses by hand. */
export const numberIn = (state: Record<string, string>, name: string): number | null => (/^\d{1,15}$/.test(state[name] ?? "") ? Number(state[name]) : null);

function split(text: string, at: string): [string, string] {
  const place = text.indexOf(at);
  return place < 0 ? [text, ""] : [text.slice(0, place), text.slice(place + 1)];
}

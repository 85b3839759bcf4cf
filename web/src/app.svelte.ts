// What all pages share: the address, the runs that are served, the colour scheme, and the little window that follows the pointer.
import { getRuns, type HookpointFacts, type RunFacts, type Runs } from "./api";
import { readRoute, writeRoute, type Route } from "./route";

export const app = $state({
  route: readRoute(location.hash),
  runs: null as Runs | null,
  problem: null as unknown,
  theme: shownTheme(),
  tip: null as { text: string; x: number; y: number; below: number } | null,
});

export const runNow = (): RunFacts | undefined => app.runs?.runs.find((run) => run.run === app.route.run);
export const hookpointNow = (): HookpointFacts | undefined => runNow()?.hookpoints.find((place) => place.hookpoint === app.route.hookpoint);

export async function loadRuns(): Promise<void> {
  app.problem = null;
  try {
    app.runs = await getRuns();
  } catch (problem) {
    app.problem = problem;
  }
}

/** Change the page's own state in the address. What the person did not do on purpose (typing, moving the map) makes no step back. */
export function setState(change: Record<string, string>, step = false): void {
  const state = { ...app.route.state, ...change };
  const route: Route = { ...app.route, state: Object.fromEntries(Object.entries(state).filter(([, value]) => value !== "")) };
  history[step ? "pushState" : "replaceState"](null, "", writeRoute(route));
  app.route = route;
}

/** A new page is read from its beginning, by eye and by screen reader; a change of state leaves a person where they are. */
function follow(): void {
  const placeOf = (route: Route): string => JSON.stringify([route.page, route.run, route.hookpoint, route.latent, route.page === "lists" ? route.state["name"] : ""]);
  const before = placeOf(app.route);
  app.route = readRoute(location.hash);
  app.tip = null;
  if (placeOf(app.route) === before) return;
  scrollTo(0, 0);
  if (!document.activeElement?.matches("header select")) document.getElementById("main")?.focus({ preventScroll: true });
}
addEventListener("popstate", follow);

function shownTheme(): "light" | "dark" {
  const chosen = document.documentElement.dataset["theme"];
  if (chosen === "light" || chosen === "dark") return chosen;
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { app.theme = shownTheme(); });

export function toggleTheme(): void {
  app.theme = app.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset["theme"] = app.theme;
  try {
    localStorage.setItem("mohole.theme", app.theme);
  } catch {
    // No storage: it lasts until the page is loaded again.
  }
}

export function showTip(node: Element, text: string): void {
  const box = node.getClientRects()[0] ?? node.getBoundingClientRect();
  app.tip = { text, x: box.left + box.width / 2, y: box.top, below: box.bottom };
}
export const hideTip = (): void => { app.tip = null; };
addEventListener("scroll", hideTip, { capture: true, passive: true });

// An address says everything, and saying it again gives the same address.
import { expect, test } from "vitest";
import { readRoute, writeRoute, type Route } from "./route";

test.each<Route>([
  { page: "runs", run: "", hookpoint: "", latent: -1, state: {} },
  { page: "run", run: "demo", hookpoint: "", latent: -1, state: { at: "resid_post.2" } },
  { page: "lists", run: "demo", hookpoint: "", latent: -1, state: { name: "金门 & 大桥?" } },
  { page: "atlas", run: "a/b?c#d", hookpoint: "mlp_out.3", latent: -1, state: { q: "金门 大桥&x=1", at: "1.5,-2,3" } },
  { page: "feature", run: "100%", hookpoint: "resid_post.1", latent: 999_999, state: { test: "a+b\n\u202e=%" } },
  { page: "xray", run: "features", hookpoint: "atlas", latent: -1, state: { text: "<b>" } },
])("$page of $run", (route) => expect(readRoute(writeRoute(route))).toEqual(route));

test("what no page has is lost, not another page", () => {
  for (const hash of ["#/demo/resid_post.1", "#/demo/resid_post.1/nothing", "#/demo/resid_post.1/-1", "#/a/b/1/2"]) expect(readRoute(hash).page).toBe("lost");
  expect(readRoute("#/%E0%A4%A/x/1").run).toBe("%E0%A4%A");
});

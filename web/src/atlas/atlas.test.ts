// The map shows every point where it is: columns, tiles, the nearest one, and a camera that keeps what is pointed at.
import { expect, test } from "vitest";
import type { MapFacts } from "../api";
import { fit, readCamera, toMap, toScreen, writeCamera, zoomAt } from "./camera";
import { arrange, inside, nearest, readColumns, sample, tilesIn } from "./points";

const N = 5000;
const facts: MapFacts = { n: N, bounds: [0, 0, 1, 1], columns: [["x", "float32"], ["y", "float32"], ["kind", "uint8"], ["family", "int32"]] };
const noise = (i: number): number => Math.abs(Math.sin(i * 12.9898) * 43758.5453) % 1;
const xs = Float32Array.from({ length: N }, (_, i) => noise(i) * 30), ys = Float32Array.from({ length: N }, (_, i) => noise(i + N) * 7);
xs[17] = NaN;

function bytes(): ArrayBuffer {
  const parts = [xs, ys, new Uint8Array(N).fill(3), Int32Array.from({ length: N }, (_, i) => i - 1)];
  const out = new Uint8Array(N * 13);
  parts.reduce((at, part) => { out.set(new Uint8Array(part.buffer), at); return at + part.byteLength; }, 0);
  return out.buffer;
}

test("columns of any width come out as they went in", () => {
  const columns = readColumns(facts, bytes());
  expect(columns.get("y")![4]).toBe(ys[4]);
  expect(columns.get("family")![N - 1]).toBe(N - 2);
  expect(() => readColumns(facts, bytes().slice(0, -1))).toThrow(/family/);
});

const points = arrange(facts, bytes());

test("every latent with a place is in exactly one tile, at its place", () => {
  expect(points.n).toBe(N - 1);
  expect(points.place[17]).toBe(-1);
  expect(new Set(points.latent).size).toBe(N - 1);
  for (let latent = 0; latent < N; latent += 37) if (latent !== 17) expect(points.x[points.place[latent]!]).toBe(xs[latent]);
  expect(tilesIn(points, points.box).reduce((sum, tile) => sum + points.start[tile + 1]! - points.start[tile]!, 0)).toBe(N - 1);
});

test("the nearest point is the one that looking at all of them finds", () => {
  for (let i = 0; i < 60; i++) {
    const x = noise(i * 7) * 32 - 1, y = noise(i * 11) * 8 - 0.5;
    let best = -1, least = 0.4 ** 2;
    for (let j = 0; j < points.n; j++) { const far = (points.x[j]! - x) ** 2 + (points.y[j]! - y) ** 2; if (far < least) { least = far; best = j; } }
    expect(nearest(points, x, y, 0.4)).toBe(best);
  }
});

test("what is inside a box, or that it is too many", () => {
  const box = { left: 3, bottom: 1, right: 5, top: 2 };
  const all = [...xs.keys()].filter((i) => xs[i]! >= 3 && xs[i]! <= 5 && ys[i]! >= 1 && ys[i]! <= 2);
  expect(inside(points, box, N)!.map((i) => points.latent[i]!).sort((a, b) => a - b)).toEqual(all);
  expect(inside(points, box, all.length - 1)).toBeNull();
  expect(all).toEqual(expect.arrayContaining(sample(points, box, 3).map((i) => points.latent[i]!)));
});

test("zooming keeps what is pointed at, and an address brings the same view into another window", () => {
  const size = { width: 900, height: 600 }, whole = fit(points.box, size);
  const before = toMap(whole, size, 200, 450), zoomed = zoomAt(whole, size, 200, 450, 8, whole);
  expect(toScreen(zoomed, size, ...before).map(Math.round)).toEqual([200, 450]);
  const small = fit(points.box, { width: 300, height: 600 }), there = readCamera(writeCamera(zoomed, whole), small);
  expect(there.scale / small.scale).toBeCloseTo(8, 1);
  expect(there.x).toBeCloseTo(zoomed.x, 2);
  expect(readCamera("nonsense", whole)).toBe(whole);
});

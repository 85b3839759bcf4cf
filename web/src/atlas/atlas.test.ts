// The map shows every point where it is: columns, tiles, the nearest one, and a camera that keeps what is pointed at.
import { expect, test } from "vitest";
import type { MapFacts } from "../api";
import { fit, readCamera, toMap, toScreen, writeCamera, zoomAt } from "./camera";
import { arrange, inside, nearest, readColumns, sample, tilesIn } from "./points";
import { TiledMap, type Address } from "./tiles";

const N = 5000;
const facts: MapFacts = { n: N, bounds: [0, 0, 1, 1], columns: [["x", "float32"], ["y", "float32"], ["kind", "uint8"], ["family", "int32"]], tiles: null };
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
  expect(points.place(17)).toBe(-1);
  expect(new Set(points.latent).size).toBe(N - 1);
  for (let latent = 0; latent < N; latent += 37) if (latent !== 17) expect(points.x[points.place(latent)]).toBe(xs[latent]);
  expect(tilesIn(points, points.box).reduce((sum, tile) => sum + tile.n, 0)).toBe(N - 1);
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

// A quadtree of the same points: each in the highest tile of its square that has room, as the server does it.
const SIDE = 30, ROOM = 40, LEVELS = 5, tiledFacts: MapFacts = { n: N, bounds: [0, 0, 30, 7], columns: [], tiles: { columns: [["latent", "int32"], ["x", "float32"], ["y", "float32"]], square: [0, 0, SIDE], shares: [0.01, 0.04, 0.16, 0.6, 1], most: ROOM } };
const cellOf = (z: number, i: number): string => [z, Math.floor((xs[i]! / SIDE) * 2 ** z), Math.floor((ys[i]! / SIDE) * 2 ** z)].join();
const held = new Map<string, number[]>(), under = new Map<string, number>();
for (let i = 0; i < N; i++) {
  if (i === 17) continue;
  for (let z = 0; z < LEVELS; z++) {
    const here = held.get(cellOf(z, i)) ?? [];
    held.set(cellOf(z, i), here);
    if (here.length < ROOM || z === LEVELS - 1) { here.push(i); break; }
    under.set(cellOf(z, i), (under.get(cellOf(z, i)) ?? 0) + 1);
  }
}
function tileBytes(address: Address): ArrayBuffer {
  const inside = held.get(address.join()) ?? [];
  const parts = [Int32Array.of(inside.length, under.get(address.join()) ?? 0), Int32Array.from(inside), Float32Array.from(inside, (i) => xs[i]!), Float32Array.from(inside, (i) => ys[i]!)];
  const out = new Uint8Array(8 + 12 * inside.length);
  parts.reduce((at, part) => { out.set(new Uint8Array(part.buffer), at); return at + part.byteLength; }, 0);
  return out.buffer;
}

test("a view fetches what it lacks, once, and closer in it has every point of its box", () => {
  const map = new TiledMap(tiledFacts, tiledFacts.tiles!), box = { left: 3, bottom: 1, right: 6, top: 3 }, asked: string[] = [];
  const settle = (box: { left: number; bottom: number; right: number; top: number }): void => {
    for (let rounds = 0, wanted = map.missing(box); wanted.length; wanted = map.missing(box)) {
      expect(++rounds).toBeLessThan(9);
      for (const address of wanted) { asked.push(String(address)); map.add(address, tileBytes(address)); }
    }
  };
  map.look({ x: 15, y: 3, scale: 256 / SIDE });
  settle({ left: 0, bottom: 0, right: 30, top: 7 });
  expect([map.points.level, map.points.n, map.isAll(box)]).toEqual([0, ROOM, false]);
  map.look({ x: 4.5, y: 2, scale: (256 / SIDE) * 2 ** 9 });
  settle(box);
  expect(map.isAll(box)).toBe(true);
  expect(new Set(asked).size).toBe(asked.length);
  const all = [...xs.keys()].filter((i) => xs[i]! >= box.left && xs[i]! <= box.right && ys[i]! >= box.bottom && ys[i]! <= box.top);
  expect(inside(map.points, box, N)!.map((i) => map.points.latent[i]!).sort((a, b) => a - b)).toEqual(all);
  expect(map.points.n).toBeLessThan(N / 2);
  for (const latent of all) expect(map.points.x[map.points.place(latent)]).toBe(xs[latent]);
  map.look({ x: 15, y: 3, scale: 256 / SIDE });
  expect(inside(map.points, box, N)!.length).toBeLessThan(ROOM);
  expect(() => map.add([9, 0, 0], tileBytes([0, 0, 0]).slice(0, -1))).toThrow(/column y/);
});

test("below a tile that holds all of its square nothing is asked for", () => {
  const map = new TiledMap(tiledFacts, tiledFacts.tiles!), box = { left: 0, bottom: 0, right: 30, top: 7 };
  map.look({ x: 15, y: 3, scale: 1e6 });
  map.add([0, 0, 0], Int32Array.of(0, 0).buffer);
  expect(map.missing(box)).toEqual([]);
  expect(map.isAll(box)).toBe(true);
});

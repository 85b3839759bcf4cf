// The map's points as typed arrays, in an order that draws fast: by tile, and random within a tile.
//
// Any first part of a tile is a fair sample of it, so a slow machine draws fewer points while the map moves and all when it rests.
import type { MapFacts } from "../api";
import type { Box } from "./camera";

export const TILES = 16; // along a side
const CELLS = 384; // along a side, for finding what is under the pointer
const SIZES = { float32: 4, int32: 4, uint8: 1 } as const;

export type Column = Float32Array | Int32Array | Uint8Array;

export interface Points {
  n: number;
  /** Positions in drawing order. */
  x: Float32Array;
  y: Float32Array;
  /** Which latent each one is, and where each latent is (-1: it has no place). */
  latent: Uint32Array;
  place: Int32Array;
  /** Tile t is [start[t], start[t + 1]). */
  start: Uint32Array;
  box: Box;
  /** The box of all but the outermost of them. */
  middle: Box;
  /** Columns by latent; log10_density is called density. */
  columns: Map<string, Column>;
  cells: { start: Uint32Array; points: Uint32Array };
}

export function readColumns(facts: MapFacts, bytes: ArrayBuffer): Map<string, Column> {
  const columns = new Map<string, Column>();
  let at = 0;
  for (const [name, type] of facts.columns) {
    const end = at + facts.n * SIZES[type];
    if (end > bytes.byteLength) throw new RangeError(`The map ends inside its column ${name}: ${bytes.byteLength} bytes for ${facts.n} latents.`);
    const cut = bytes.slice(at, end);
    columns.set(name.replace(/^log10_/, ""), type === "float32" ? new Float32Array(cut) : type === "int32" ? new Int32Array(cut) : new Uint8Array(cut));
    at = end;
  }
  return columns;
}

/** The same shuffle every time: one view has one picture. */
function shuffled(n: number): Uint32Array {
  const order = Uint32Array.from({ length: n }, (_, i) => i);
  let state = 2463534242;
  for (let i = n - 1; i > 0; i--) {
    state ^= state << 13; state ^= state >>> 17; state ^= state << 5;
    const j = (state >>> 0) % (i + 1), kept = order[i]!;
    order[i] = order[j]!; order[j] = kept;
  }
  return order;
}

/** Items grouped by a key below `n_keys`, keeping their order within a key. */
function grouped(items: Uint32Array, keyOf: (item: number) => number, nKeys: number): { start: Uint32Array; items: Uint32Array } {
  const start = new Uint32Array(nKeys + 1), keys = new Uint32Array(items.length);
  for (let i = 0; i < items.length; i++) start[(keys[i] = keyOf(items[i]!)) + 1]!++;
  for (let k = 0; k < nKeys; k++) start[k + 1]! += start[k]!;
  const next = start.slice(), out = new Uint32Array(items.length);
  for (let i = 0; i < items.length; i++) out[next[keys[i]!]!++] = items[i]!;
  return { start, items: out };
}

const within = (value: number, low: number, high: number, n: number): number =>
  Math.min(n - 1, Math.max(0, Math.floor(((value - low) / (high - low || 1)) * n)));

export function arrange(facts: MapFacts, bytes: ArrayBuffer): Points {
  const columns = readColumns(facts, bytes);
  const xs = columns.get("x") as Float32Array, ys = columns.get("y") as Float32Array;
  const placed = shuffled(facts.n).filter((i) => Number.isFinite(xs[i]) && Number.isFinite(ys[i]));
  const box: Box = { left: Infinity, bottom: Infinity, right: -Infinity, top: -Infinity };
  for (const i of placed) {
    box.left = Math.min(box.left, xs[i]!); box.right = Math.max(box.right, xs[i]!);
    box.bottom = Math.min(box.bottom, ys[i]!); box.top = Math.max(box.top, ys[i]!);
  }
  if (!placed.length) Object.assign(box, { left: 0, bottom: 0, right: 1, top: 1 });
  const cellOf = (n: number) => (i: number) => within(xs[i]!, box.left, box.right, n) + n * within(ys[i]!, box.bottom, box.top, n);
  const tiles = grouped(placed, cellOf(TILES), TILES * TILES);
  const n = placed.length, x = new Float32Array(n), y = new Float32Array(n), place = new Int32Array(facts.n).fill(-1);
  tiles.items.forEach((latent, i) => { x[i] = xs[latent]!; y[i] = ys[latent]!; place[latent] = i; });
  const cells = grouped(Uint32Array.from({ length: n }, (_, i) => i), (i) => cellOf(CELLS)(tiles.items[i]!), CELLS * CELLS);
  return { n, x, y, latent: tiles.items, place, start: tiles.start, box, middle: middleOf(x, y, box), columns, cells: { start: cells.start, points: cells.items } };
}

function middleOf(x: Float32Array, y: Float32Array, box: Box): Box {
  if (x.length < 200) return box;
  const step = Math.max(1, Math.floor(x.length / 20_000));
  const ends = (values: Float32Array): [number, number] => {
    const some = Float32Array.from({ length: Math.floor(values.length / step) }, (_, i) => values[i * step]!).sort();
    return [some[Math.floor(some.length * 0.004)]!, some[Math.floor(some.length * 0.996)]!];
  };
  const [left, right] = ends(x), [bottom, top] = ends(y);
  return { left, bottom, right, top };
}

/** The tiles that a box touches. */
export function tilesIn(points: Points, box: Box): number[] {
  const { left, right, bottom, top } = points.box, found: number[] = [];
  if (box.right < left || box.left > right || box.top < bottom || box.bottom > top) return found;
  const [x0, x1] = [within(box.left, left, right, TILES), within(box.right, left, right, TILES)];
  const [y0, y1] = [within(box.bottom, bottom, top, TILES), within(box.top, bottom, top, TILES)];
  for (let row = y0; row <= y1; row++) for (let column = x0; column <= x1; column++) {
    const tile = column + TILES * row;
    if (points.start[tile + 1]! > points.start[tile]!) found.push(tile);
  }
  return found;
}

/** The nearest point within a distance, as its place in drawing order; -1 where there is none. */
export function nearest(points: Points, x: number, y: number, reach: number): number {
  const { left, right, bottom, top } = points.box;
  let best = -1, least = reach * reach;
  if (x + reach < left || x - reach > right || y + reach < bottom || y - reach > top) return best;
  const [x0, x1] = [within(x - reach, left, right, CELLS), within(x + reach, left, right, CELLS)];
  const [y0, y1] = [within(y - reach, bottom, top, CELLS), within(y + reach, bottom, top, CELLS)];
  for (let row = y0; row <= y1; row++) for (let column = x0; column <= x1; column++) {
    const cell = column + CELLS * row;
    for (let at = points.cells.start[cell]!; at < points.cells.start[cell + 1]!; at++) {
      const i = points.cells.points[at]!, far = (points.x[i]! - x) ** 2 + (points.y[i]! - y) ** 2;
      if (far < least) { least = far; best = i; }
    }
  }
  return best;
}

/** At most `most` points inside a box, or null where there are more. */
export function inside(points: Points, box: Box, most: number): number[] | null {
  const found: number[] = [];
  for (const tile of tilesIn(points, box)) {
    for (let i = points.start[tile]!; i < points.start[tile + 1]!; i++) {
      const x = points.x[i]!, y = points.y[i]!;
      if (x < box.left || x > box.right || y < box.bottom || y > box.top) continue;
      if (found.length === most) return null;
      found.push(i);
    }
  }
  return found;
}

/** Some of the points of each tile that a box touches. */
export function sample(points: Points, box: Box, perTile: number): number[] {
  return tilesIn(points, box).flatMap((tile) => {
    const start = points.start[tile]!, n = Math.min(perTile, points.start[tile + 1]! - start);
    return Array.from({ length: n }, (_, i) => start + i).filter((i) => points.x[i]! >= box.left && points.x[i]! <= box.right && points.y[i]! >= box.bottom && points.y[i]! <= box.top);
  });
}

export interface Region { family: number; x: number; y: number; size: number }

/** Where each family lies: the mean of its members, largest first. */
export function regions(points: Points): Region[] {
  const families = points.columns.get("family");
  const sums = new Map<number, Region>();
  if (!families) return [];
  for (let i = 0; i < points.n; i++) {
    const family = families[points.latent[i]!]!;
    if (family < 0) continue;
    const sum = sums.get(family) ?? { family, x: 0, y: 0, size: 0 };
    sum.x += points.x[i]!; sum.y += points.y[i]!; sum.size++;
    sums.set(family, sum);
  }
  return [...sums.values()].filter((sum) => sum.size > 2).map((sum) => ({ ...sum, x: sum.x / sum.size, y: sum.y / sum.size })).sort((a, b) => b.size - a.size);
}

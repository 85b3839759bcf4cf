// The map's points as typed arrays, in an order that draws fast: by tile, and random within a tile.
//
// Any first part of a tile is a fair sample of it, so a slow machine draws fewer points while the map moves and all when it rests.
// A small map is here whole, its tiles a grid. Of a large one there are the tiles that somebody has looked at (tiles.ts): each level
// adds points to those above it, and a picture shows the levels to `level`, so that it is as dense everywhere as the map is.
import type { MapFacts } from "../api";
import type { Box } from "./camera";

const GRID = 16; // tiles along a side of a map that is here whole
export const SIZES = { float32: 4, int32: 4, uint8: 1 } as const;

export type Column = Float32Array | Int32Array | Uint8Array;

export interface Tile {
  /** Its points are [start, start + n). */
  start: number;
  n: number;
  level: number;
  box: Box;
}

export interface Points {
  /** How many are here; the arrays may be longer. */
  n: number;
  /** Positions in drawing order. */
  x: Float32Array;
  y: Float32Array;
  /** Which latent each one is, and where each latent is (-1: it has no place, or is not here). */
  latent: Uint32Array;
  place: (latent: number) => number;
  tiles: Tile[];
  /** The deepest level that is shown, and how many points the whole map has to there. */
  level: number;
  nToLevel: number;
  box: Box;
  /** The box of all but the outermost of them. */
  middle: Box;
  /** By place in drawing order; log10_density is called density. */
  columns: Map<string, Column>;
  /** One RGBA for each. */
  colours: Uint8Array;
}

export const made = (type: keyof typeof SIZES, data: ArrayBuffer): Column => (type === "float32" ? new Float32Array(data) : type === "int32" ? new Int32Array(data) : new Uint8Array(data));
export const nameOf = (column: string): string => column.replace(/^log10_/, "");

export function readColumns(facts: Pick<MapFacts, "n" | "columns">, bytes: ArrayBuffer, from = 0): Map<string, Column> {
  const columns = new Map<string, Column>();
  let at = from;
  for (const [name, type] of facts.columns) {
    const end = at + facts.n * SIZES[type];
    if (end > bytes.byteLength) throw new RangeError(`The map ends inside its column ${name}: ${bytes.byteLength} bytes for ${facts.n} features.`);
    columns.set(nameOf(name), made(type, bytes.slice(at, end)));
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

/** A map that is here whole. */
export function arrange(facts: MapFacts, bytes: ArrayBuffer): Points {
  const read = readColumns(facts, bytes);
  const xs = read.get("x") as Float32Array, ys = read.get("y") as Float32Array;
  const placed = shuffled(facts.n).filter((i) => Number.isFinite(xs[i]) && Number.isFinite(ys[i]));
  const box: Box = { left: Infinity, bottom: Infinity, right: -Infinity, top: -Infinity };
  for (const i of placed) {
    box.left = Math.min(box.left, xs[i]!); box.right = Math.max(box.right, xs[i]!);
    box.bottom = Math.min(box.bottom, ys[i]!); box.top = Math.max(box.top, ys[i]!);
  }
  if (!placed.length) Object.assign(box, { left: 0, bottom: 0, right: 1, top: 1 });
  const { start, items: latent } = grouped(placed, (i) => within(xs[i]!, box.left, box.right, GRID) + GRID * within(ys[i]!, box.bottom, box.top, GRID), GRID * GRID);
  const n = placed.length, places = new Int32Array(facts.n).fill(-1);
  latent.forEach((each, i) => { places[each] = i; });
  const inOrder = (column: Column): Column => column.constructor === Float32Array ? Float32Array.from(latent, (i) => column[i]!) : column.constructor === Int32Array ? Int32Array.from(latent, (i) => column[i]!) : Uint8Array.from(latent, (i) => column[i]!);
  const columns = new Map([...read].map(([name, column]) => [name, inOrder(column)]));
  const x = columns.get("x") as Float32Array, y = columns.get("y") as Float32Array;
  const tiles = Array.from({ length: GRID * GRID }, (_, t): Tile => ({ start: start[t]!, n: start[t + 1]! - start[t]!, level: 0, box: cell(box, t % GRID, Math.floor(t / GRID)) })).filter((tile) => tile.n > 0);
  return { n, x, y, latent, place: (each) => places[each] ?? -1, tiles, level: 0, nToLevel: n, box, middle: middleOf(x, y, n, box), columns, colours: new Uint8Array(4 * n) };
}

/** A cell of the grid, a little larger than it is: which one a point on a border is in, rounding decides. */
function cell(box: Box, column: number, row: number): Box {
  const width = (box.right - box.left) / GRID, height = (box.top - box.bottom) / GRID, loose = 1e-4;
  return { left: box.left + width * (column - loose), right: box.left + width * (column + 1 + loose), bottom: box.bottom + height * (row - loose), top: box.bottom + height * (row + 1 + loose) };
}

/** Of `n` points in an order by chance, or by tile. */
export function middleOf(x: Float32Array, y: Float32Array, n: number, box: Box): Box {
  if (n < 200) return box;
  const step = Math.max(1, Math.floor(n / 20_000));
  const ends = (values: Float32Array): [number, number] => {
    const some = Float32Array.from({ length: Math.floor(n / step) }, (_, i) => values[i * step]!).sort();
    return [some[Math.floor(some.length * 0.004)]!, some[Math.floor(some.length * 0.996)]!];
  };
  const [left, right] = ends(x), [bottom, top] = ends(y);
  return { left, bottom, right, top };
}

export const touches = (a: Box, b: Box): boolean => a.right >= b.left && a.left <= b.right && a.top >= b.bottom && a.bottom <= b.top;

/** The tiles that are shown and that a box touches. */
export const tilesIn = (points: Points, box: Box): Tile[] => points.tiles.filter((tile) => tile.level <= points.level && touches(tile.box, box));

/** The nearest point within a distance, as its place in drawing order; -1 where there is none. */
export function nearest(points: Points, x: number, y: number, reach: number): number {
  let best = -1, least = reach * reach;
  for (const { start, n } of tilesIn(points, { left: x - reach, right: x + reach, bottom: y - reach, top: y + reach })) {
    for (let i = start; i < start + n; i++) {
      const far = (points.x[i]! - x) ** 2 + (points.y[i]! - y) ** 2;
      if (far < least) { least = far; best = i; }
    }
  }
  return best;
}

const isIn = (points: Points, i: number, box: Box): boolean => points.x[i]! >= box.left && points.x[i]! <= box.right && points.y[i]! >= box.bottom && points.y[i]! <= box.top;

/** At most `most` points inside a box, or null where there are more. */
export function inside(points: Points, box: Box, most: number): number[] | null {
  const found: number[] = [];
  for (const { start, n } of tilesIn(points, box)) {
    for (let i = start; i < start + n; i++) {
      if (!isIn(points, i, box)) continue;
      if (found.length === most) return null;
      found.push(i);
    }
  }
  return found;
}

/** Some of the points of each tile that a box touches. */
export const sample = (points: Points, box: Box, perTile: number): number[] =>
  tilesIn(points, box).flatMap(({ start, n }) => Array.from({ length: Math.min(perTile, n) }, (_, i) => start + i).filter((i) => isIn(points, i, box)));

export interface Region { family: number; x: number; y: number; size: number }

/** Where each family lies: the mean of its members, largest first. */
export function regions(points: Points): Region[] {
  const families = points.columns.get("family");
  const sums = new Map<number, Region>();
  if (!families) return [];
  for (let i = 0; i < points.n; i++) {
    const family = families[i]!;
    if (family < 0) continue;
    const sum = sums.get(family) ?? { family, x: 0, y: 0, size: 0 };
    sum.x += points.x[i]!; sum.y += points.y[i]!; sum.size++;
    sums.set(family, sum);
  }
  return [...sums.values()].filter((sum) => sum.size > 2).map((sum) => ({ ...sum, x: sum.x / sum.size, y: sum.y / sum.size })).sort((a, b) => b.size - a.size);
}

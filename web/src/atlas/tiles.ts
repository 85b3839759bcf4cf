// A large map, tile by tile: which tiles a view needs, and how what comes of them is put beside the points that are here already.
import type { MapFacts, TileFacts } from "../api";
import type { Box, Camera } from "./camera";
import { made, middleOf, nameOf, readColumns, SIZES, type Points } from "./points";

const TILE_PIXELS = 256; // a tile's side on the screen, to a factor of 1.4 either way: a view has some twenty of its deepest level

export type Address = readonly [z: number, x: number, y: number];

export class TiledMap {
  readonly points: Points;
  private readonly places = new Map<number, number>();
  /** Of the tiles that are here: how many points are below each. */
  private readonly below = new Map<string, number>();

  constructor(private readonly facts: MapFacts, private readonly tiles: TileFacts) {
    const [left, bottom, right, top] = facts.bounds, box = { left, bottom, right, top };
    this.points = {
      n: 0, x: new Float32Array(0), y: new Float32Array(0), latent: new Uint32Array(0), colours: new Uint8Array(0), columns: new Map(), tiles: [],
      place: (latent) => this.places.get(latent) ?? -1, level: 0, nToLevel: 0, box, middle: box,
    };
  }

  /** Show as many levels as a camera has use for. */
  look(camera: Camera): void {
    const deepest = this.tiles.shares.length - 1, wanted = Math.round(Math.log2((this.tiles.square[2] * camera.scale) / TILE_PIXELS));
    this.points.level = Math.min(Math.max(wanted, 0), deepest);
    this.points.nToLevel = this.facts.n * (this.tiles.shares[this.points.level] ?? 1);
  }

  /** Tiles of the shown levels that a box touches, are not here, and may hold something: the highest level first, then what is next to the middle. */
  missing(box: Box): Address[] {
    const found: { address: Address; far: number }[] = [];
    for (const address of this.inView(box)) {
      if (this.below.has(String(address)) || this.isWhole(above(address))) continue;
      const { left, right, bottom, top } = this.boxOf(address);
      found.push({ address, far: Math.hypot((left + right - box.left - box.right) / (right - left), (bottom + top - box.bottom - box.top) / (top - bottom)) });
    }
    return found.sort((a, b) => a.address[0] - b.address[0] || a.far - b.far).map(({ address }) => address);
  }

  /** Are all points of a box among those shown? */
  isAll(box: Box): boolean {
    return this.inView(box).every((address) => address[0] < this.points.level || this.isWhole(address));
  }

  /** Put a tile's bytes with the others. */
  add(address: Address, bytes: ArrayBuffer): void {
    if (bytes.byteLength < 8) throw new RangeError(`Tile ${address.join("/")} of the map is cut off: ${bytes.byteLength} bytes.`);
    const [n, below] = new Int32Array(bytes.slice(0, 8)) as unknown as [number, number], { points } = this;
    const read = readColumns({ n, columns: this.tiles.columns }, bytes, 8), start = points.n;
    this.below.set(String(address), below);
    if (!n) return;
    this.makeRoom(start + n);
    points.latent.set(read.get("latent")!, start);
    for (const [name, column] of points.columns) column.set(read.get(name)!, start);
    read.get("latent")!.forEach((latent, i) => this.places.set(latent, start + i));
    points.n += n;
    points.tiles.push({ start, n, level: address[0], box: this.boxOf(address) });
    if (address[0] === 0) points.middle = middleOf(points.x, points.y, n, points.box);
  }

  /** Is everything of its square here, in it or above it? What is in no tile that is here, nobody knows. */
  private isWhole(address: Address | null): boolean {
    for (let at = address; at; at = above(at)) if (this.below.get(String(at)) === 0) return true;
    return false;
  }

  private inView(box: Box): Address[] {
    const [left, bottom, side] = this.tiles.square, found: Address[] = [];
    if (box.right < left || box.top < bottom || box.left > left + side || box.bottom > bottom + side) return found;
    for (let z = 0; z <= this.points.level; z++) {
      const across = 2 ** z, place = (value: number, least: number): number => Math.min(across - 1, Math.max(0, Math.floor(((value - least) / side) * across)));
      for (let y = place(box.bottom, bottom); y <= place(box.top, bottom); y++) for (let x = place(box.left, left); x <= place(box.right, left); x++) found.push([z, x, y]);
    }
    return found;
  }

  private boxOf([z, x, y]: Address): Box {
    const [left, bottom, whole] = this.tiles.square, side = whole / 2 ** z, loose = side * 1e-4; // which tile a point on a border is in, rounding decides
    return { left: left + x * side - loose, right: left + (x + 1) * side + loose, bottom: bottom + y * side - loose, top: bottom + (y + 1) * side + loose };
  }

  private makeRoom(n: number): void {
    const { points } = this, room = points.x.length;
    if (n <= room) return;
    const larger = Math.max(n, 2 * room, 1 << 15);
    points.latent = grown(points.latent, new Uint32Array(larger));
    points.colours = grown(points.colours, new Uint8Array(4 * larger));
    for (const [name, type] of this.tiles.columns) {
      if (name === "latent") continue;
      const column = made(type, new ArrayBuffer(SIZES[type] * larger)), before = points.columns.get(nameOf(name));
      points.columns.set(nameOf(name), before ? grown(before, column) : column);
    }
    points.x = points.columns.get("x") as Float32Array;
    points.y = points.columns.get("y") as Float32Array;
  }
}

const above = ([z, x, y]: Address): Address | null => (z ? [z - 1, x >> 1, y >> 1] : null);

function grown<T extends Float32Array | Int32Array | Uint32Array | Uint8Array>(before: T, larger: T): T {
  larger.set(before);
  return larger;
}

// A table of a published folder: NAME.bin holds blocks, NAME.at where each begins. A block is fetched once and kept.
import { unpack, type Columns } from "./columns";
import type { Folder } from "./folder";

const MOST_STARTS = 4096; // of a table whose starts are fetched whole and kept: 32 KB

export class Table {
  private starts: Promise<number[]> | undefined;
  private blocks = new Map<number, Promise<Columns>>();
  private all: Promise<Columns[]> | undefined;

  /** `n` rows, `size` of them in a block. */
  constructor(private readonly folder: Folder, private readonly name: string, readonly n: number, readonly size: number) {}

  /** Every block, in one request. */
  whole(): Promise<Columns[]> {
    this.all ??= kept(this.range(0, Math.ceil(this.n / this.size)), () => { this.all = undefined; });
    return this.all;
  }

  block(number: number): Promise<Columns> {
    const known = this.blocks.get(number) ?? (this.all ? this.all.then((blocks) => blocks[number]!) : undefined);
    if (known) return known;
    const asked = kept(this.range(number, number + 1).then((blocks) => blocks[0]!), () => { this.blocks.delete(number); });
    this.blocks.set(number, asked);
    return asked;
  }

  /** Fetch where its blocks begin, so that a block is one request away; of a large table that waits until it is known which. */
  prepare(): void {
    const n = Math.ceil(this.n / this.size);
    if (n && n <= MOST_STARTS) this.starts ??= kept(this.startsOf(0, n), () => { this.starts = undefined; });
  }

  private async startsOf(first: number, last: number): Promise<number[]> {
    const at = new DataView((await this.folder.range(`${this.name}.at`, 8 * first, 8 * (last + 1))).buffer);
    return Array.from({ length: last - first + 1 }, (_, i) => Number(at.getBigUint64(8 * i, true)));
  }

  private async range(first: number, last: number): Promise<Columns[]> {
    if (first === last) return [];
    this.prepare();
    const starts = this.starts ? (await this.starts).slice(first, last + 1) : await this.startsOf(first, last);
    const bytes = await this.folder.range(`${this.name}.bin`, starts[0]!, starts.at(-1)!);
    return starts.slice(1).map((end, i) => unpack(bytes.subarray(starts[i]! - starts[0]!, end - starts[0]!), `${this.name}.bin, block ${first + i}`));
  }
}

/** A promise that is worth keeping: what failed is asked for again. */
export function kept<T>(promise: Promise<T>, forget: () => void): Promise<T> {
  promise.catch(forget);
  return promise;
}

// The header: 48 bytes for each latent, in order, so that a feature of millions is one request away. docs/formats.md has the table.
import type { Folder } from "./folder";

const STRIDE = 48;

export interface Entry { count: number; sum: number; maximum: number; family: number; offset: number; nBytes: number }

/** The entries of latents [first, last). */
export async function entries(folder: Folder, first: number, last: number, signal?: AbortSignal): Promise<Entry[]> {
  if (first >= last) return [];
  const view = new DataView((await folder.range("header.bin", STRIDE * first, STRIDE * last, signal)).buffer);
  return Array.from({ length: last - first }, (_, i) => {
    const at = STRIDE * i;
    return {
      count: Number(view.getBigInt64(at, true)), sum: view.getFloat64(at + 8, true), maximum: view.getFloat32(at + 16, true), family: view.getInt32(at + 20, true),
      offset: Number(view.getBigUint64(at + 32, true)), nBytes: view.getUint32(at + 40, true),
    };
  });
}

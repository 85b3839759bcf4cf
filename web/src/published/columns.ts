// A block as named columns: a zstd frame around a safetensors file. Arithmetic only; checksums are the host's and the writer's.
import { decompress } from "fzstd";
import { damaged } from "./folder";

export type Numbers = Uint8Array | Uint16Array | Uint32Array | Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

const DECODER = new TextDecoder("utf-8", { ignoreBOM: true }); // a byte order mark in a text is part of it

export class Columns {
  private texts = new Map<string, { bytes: Uint8Array; starts: Uint32Array; made: string[] }>();

  constructor(private readonly named: Map<string, Numbers>, private readonly where: string) {}

  get(name: string): Numbers {
    const column = this.named.get(name);
    if (!column) throw damaged(`${this.where} (no ${name})`);
    return column;
  }

  /** One of a column of texts: NAME_bytes, all one after the other, and NAME_length. */
  text(name: string, at: number): string {
    let known = this.texts.get(name);
    if (!known) {
      const lengths = this.get(`${name}_length`), starts = new Uint32Array(lengths.length + 1);
      for (let i = 0; i < lengths.length; i++) starts[i + 1] = starts[i]! + lengths[i]!;
      this.texts.set(name, (known = { bytes: this.get(`${name}_bytes`) as Uint8Array, starts, made: [] }));
    }
    return (known.made[at] ??= DECODER.decode(known.bytes.subarray(known.starts[at], known.starts[at + 1])));
  }
}

export function unpack(frame: Uint8Array, where: string): Columns {
  try {
    const whole = decompress(frame), view = new DataView(whole.buffer, whole.byteOffset, whole.byteLength);
    const start = 8 + Number(view.getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(whole.subarray(8, start))) as Record<string, { dtype: string; data_offsets: [number, number] }>;
    const columns = Object.entries(header).filter(([name]) => name !== "__metadata__");
    return new Columns(new Map(columns.map(([name, { dtype, data_offsets: [from, to] }]) => [name, numbers(dtype, slice(whole, start + from, start + to))])), where);
  } catch (error) {
    throw error instanceof TypeError || error instanceof RangeError || error instanceof SyntaxError || isOfZstd(error) ? damaged(where) : error;
  }
}

/** Its errors are plain ones with a number. */
const isOfZstd = (error: unknown): boolean => error instanceof Error && "code" in error;

function slice(bytes: Uint8Array, from: number, to: number): ArrayBuffer {
  if (!(from >= 0 && from <= to && to <= bytes.byteLength)) throw new RangeError("outside");
  return bytes.buffer.slice(bytes.byteOffset + from, bytes.byteOffset + to) as ArrayBuffer; // a copy stands aligned
}

function numbers(dtype: string, data: ArrayBuffer): Numbers {
  switch (dtype) {
    case "U8": return new Uint8Array(data);
    case "U16": return new Uint16Array(data);
    case "U32": return new Uint32Array(data);
    case "I8": return new Int8Array(data);
    case "I16": return new Int16Array(data);
    case "I32": return new Int32Array(data);
    case "F32": return new Float32Array(data);
    case "F64": return new Float64Array(data);
    case "U64": return Float64Array.from(new BigUint64Array(data), Number); // counts and places: below 2^53
    case "I64": return Float64Array.from(new BigInt64Array(data), Number);
    case "F16": return Float64Array.from(new Uint16Array(data), half);
    default: throw new RangeError(dtype);
  }
}

export function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

// What colour a point has: by how often it fires, by its label's score, or by its family.
import { percent } from "../numbers";
import type { Points } from "./points";

export const COLOURINGS = { density: "frequency", f1: "label score", family: "family" } as const;
export type Colouring = keyof typeof COLOURINGS;
type Rgb = readonly [number, number, number];

const RAMPS: Record<"light" | "dark", Record<"density" | "f1", readonly Rgb[]>> = {
  light: {
    density: [[150, 190, 196], [58, 146, 152], [10, 96, 106], [34, 44, 84]],
    f1: [[214, 150, 96], [178, 146, 112], [62, 138, 140], [8, 92, 98]],
  },
  dark: {
    density: [[44, 86, 108], [62, 150, 158], [126, 214, 196], [255, 226, 150]],
    f1: [[178, 92, 58], [150, 122, 92], [78, 168, 164], [134, 240, 226]],
  },
};
const NOTHING: Record<"light" | "dark", Rgb> = { light: [186, 186, 188], dark: [74, 80, 90] };

function along(ramp: readonly Rgb[], share: number): Rgb {
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1), i = Math.min(Math.floor(at), ramp.length - 2), rest = at - i;
  const [a, b] = [ramp[i]!, ramp[i + 1]!];
  return [0, 1, 2].map((c) => Math.round(a[c]! + (b[c]! - a[c]!) * rest)) as unknown as Rgb;
}

/** Families are told apart by hue; neighbouring numbers get far hues. */
export function familyColour(family: number, theme: "light" | "dark"): Rgb {
  const hue = ((family * 0.61803398875) % 1) * 6, [dim, bright] = theme === "dark" ? [92, 226] : [52, 178];
  const wave = (shift: number): number => Math.round(dim + (bright - dim) * Math.min(1, Math.max(0, Math.abs(((hue + shift) % 6) - 3) - 1)));
  return [wave(0), wave(4), wave(2)];
}

/** From rare to frequent, as log10: what all but the outermost fiftieths of the latents have. */
export function densityRange(points: Points): [number, number] {
  const column = points.columns.get("density"), step = Math.max(1, Math.floor(points.n / 20_000));
  const some = column ? Float32Array.from({ length: Math.ceil(points.n / step) }, (_, i) => column[i * step]!).filter(Number.isFinite).sort() : [];
  const low = some[Math.floor(some.length * 0.02)] ?? -5, high = some[Math.floor(some.length * 0.98)] ?? -1;
  return high > low ? [low, high] : [low - 1, low + 1];
}

/** Give every point its colour, from one on. */
export function paint(points: Points, colouring: Colouring, theme: "light" | "dark", [rare, frequent]: [number, number], from = 0): void {
  const out = points.colours, nothing = NOTHING[theme];
  const column = points.columns.get(colouring);
  const ramp = colouring === "family" ? null : Array.from({ length: 256 }, (_, i) => along(RAMPS[theme][colouring], i / 255));
  const hues = new Map<number, Rgb>();
  for (let i = from; i < points.n; i++) {
    const value = column ? column[i]! : NaN;
    let rgb = nothing;
    if (ramp && Number.isFinite(value)) {
      const share = colouring === "f1" ? value : (value - rare) / (frequent - rare);
      rgb = ramp[Math.round(255 * Math.min(Math.max(share, 0), 1))]!;
    } else if (!ramp && value >= 0) {
      rgb = hues.get(value) ?? familyColour(value, theme);
      hues.set(value, rgb);
    }
    out[4 * i] = rgb[0]; out[4 * i + 1] = rgb[1]; out[4 * i + 2] = rgb[2]; out[4 * i + 3] = 255;
  }
}

/** The legend's colours and the words at its ends; null for families, which have no order. */
export function legend(colouring: Colouring, theme: "light" | "dark", [rare, frequent]: [number, number]): { colours: string[]; low: string; high: string } | null {
  if (colouring === "family") return null;
  const colours = Array.from({ length: 24 }, (_, i) => `rgb(${along(RAMPS[theme][colouring], i / 23).join(" ")})`);
  return colouring === "f1" ? { colours, low: "F1 0", high: "1" } : { colours, low: `${percent(10 ** rare)} of tokens`, high: percent(10 ** frequent) };
}

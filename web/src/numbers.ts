// Writing numbers for people. What is undefined is a dash, and a number rounded to nothing has no sign.

type Maybe = number | null | undefined;

const DASH = "–";
const isKnown = (value: Maybe): value is number => value !== null && value !== undefined && Number.isFinite(value);
const minus = (text: string): string => text.replace("-", "−");

export const count = (value: Maybe): string => (isKnown(value) ? value.toLocaleString("en") : DASH);

export function fixed(value: Maybe, digits: number): string {
  if (!isKnown(value)) return DASH;
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : minus(text);
}

/** Three significant digits. */
export const short = (value: Maybe): string => (isKnown(value) ? minus(String(Number(value.toPrecision(3)))) : DASH);

/** 1,234 as 1,234 and 1,234,567 as 1.23M. */
export function compact(value: Maybe): string {
  if (!isKnown(value)) return DASH;
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]] as const) {
    // 999,999 rounds to 1M, and not to 1000k; below ten thousand every number is written out.
    if ((letter === "k" ? Math.abs(value) : Number(Math.abs(value).toPrecision(3))) >= size) return `${short(value / (letter === "k" ? 1e3 : size))}${letter}`;
  }
  return Math.abs(value) < 1000 ? short(value) : count(value);
}

/** Values along an axis, with as many digits as tell them apart. */
export function axis(values: number[]): string[] {
  if (values.some((value) => Math.abs(value) >= 10_000)) return values.map(compact);
  for (let digits = 0; digits < 8; digits++) {
    const texts = values.map((value) => fixed(value, digits));
    if (new Set(texts).size === values.length && values.every((value, i) => Math.abs(Number(texts[i]!.replace("−", "-")) - value) <= Math.abs(value) * 0.02)) return texts;
  }
  return values.map(short);
}

export function percent(share: Maybe): string {
  if (!isKnown(share)) return DASH;
  const p = 100 * share;
  if (p === 0 || p >= 10) return `${p.toFixed(0)} %`;
  if (p >= 1) return `${p.toFixed(1)} %`;
  if (p >= 0.001) return `${Number(p.toPrecision(1))} %`;
  return `${Number(share.toPrecision(1)).toExponential().replace("e-", "e−")}`;
}

/** An activation with its share of the feature's maximum in the catalogue; of one that never fired there is no share. */
export function strength(value: Maybe, maximum: Maybe): string {
  return isKnown(value) && isKnown(maximum) && maximum > 0 ? `${short(value)} · ${percent(value / maximum)} of maximum` : `${short(value)} · never fired in the catalogue`;
}

export function seconds(value: Maybe): string {
  if (!isKnown(value)) return DASH;
  if (value < 59.5) return `${fixed(value, value < 9.95 ? 1 : 0)} s`;
  // Rounded before it is cut: 119.7 s are 2 min 0 s, and never 1 min 60 s.
  const whole = Math.round(value), minutes = Math.round(value / 60);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Round ends for an axis: at most `n` of 1, 2 or 5 times a power of ten, inside [low, high]. */
export function ticks(low: number, high: number, n: number): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / Math.max(1, n - 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999) ?? 10);
  const found: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

// What a model wrote, token by token, with what was read there.
import { visible } from "../visible";

/** `text` is what the token adds to the answer; of a part of a character nothing, but for the last part. */
export interface Reading { text: string; token: string; id: number; values: number[] }
/** The tokens that one piece of text is made of, and the most that each feature reaches at them. */
export interface Group { text: string; tokens: Reading[]; values: number[] }

/** Readings by the text that they make: put together, the texts are the answer. */
export function groups(readings: readonly Reading[]): Group[] {
  const found: Group[] = [];
  let waiting: Reading[] = [];
  const close = (): void => {
    if (waiting.length) found.push({ text: waiting.map(({ text }) => text).join(""), tokens: waiting, values: waiting[0]!.values.map((_, i) => Math.max(...waiting.map(({ values }) => values[i] ?? 0))) });
    waiting = [];
  };
  for (const reading of readings) {
    waiting.push(reading);
    if (reading.text) close();
  }
  close();
  return found;
}

/** Text of several lines made safe to look at: lines stay lines. */
export const visibleLines = (text: string): string => text.split("\n").map(visible).join("\n");

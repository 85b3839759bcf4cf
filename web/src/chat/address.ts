// Everything that decides what a chat shows, to and from an address: who opens a link sees the same texts, drawn with the same numbers.
import type { Said } from "./history";
import { readName, readSettings, writeSettings, nameOf, type LatentName, type Setting } from "./steering";

export interface Talk {
  /** A named variant of the server's, that comes before the settings. */
  variant: string;
  settings: Setting[];
  said: Said[];
  temperature: number;
  maxTokens: number;
  /** Which feature colours the tokens; null: the first one that is set; false: none. */
  colour: LatentName | null | false;
}

export const PLAIN: Talk = { variant: "", settings: [], said: [], temperature: 0, maxTokens: 80, colour: null };
export const LONGEST_SAID = 4000;
export const MOST_TOKENS = 4096;

const join = (texts: string[]): string => texts.map((text) => text.replace(/[\\|]/g, "\\$&")).join("|");
const split = (text: string): string[] => [...text.matchAll(/(?:\\[^]|[^\\|])+/g)].map(([part]) => part.replace(/\\([^])/g, "$1"));

/** The page's state in its address. What is as always is left out; a conversation that is too long for an address is, too. */
export function writeTalk({ variant, settings, said, temperature, maxTokens, colour }: Talk): Record<string, string> {
  const text = join(said.map((each) => each.text)), seeds = said.map((each) => each.seed), fits = text.length <= LONGEST_SAID;
  return {
    variant,
    steer: writeSettings(settings),
    say: fits ? text : "",
    seeds: fits && seeds.some((seed) => seed !== 1) ? (new Set(seeds).size === 1 ? String(seeds[0]) : seeds.join(" ")) : "",
    temperature: temperature === PLAIN.temperature ? "" : String(temperature),
    tokens: maxTokens === PLAIN.maxTokens ? "" : String(maxTokens),
    colour: colour === false ? "none" : colour ? nameOf(colour) : "",
  };
}

export function readTalk(state: Record<string, string>): Talk {
  const seeds = (state["seeds"] ?? "").split(" ").map((seed) => (/^\d{1,15}$/.test(seed) ? Number(seed) : 1));
  const temperature = Number(state["temperature"] ?? PLAIN.temperature), tokens = Number(state["tokens"] ?? PLAIN.maxTokens);
  return {
    variant: state["variant"] ?? "",
    settings: readSettings(state["steer"] ?? ""),
    said: state["say"] ? split(state["say"]).map((text, i) => ({ text, seed: seeds[Math.min(i, seeds.length - 1)] ?? 1 })) : [],
    temperature: temperature >= 0 && temperature <= 2 ? temperature : PLAIN.temperature,
    maxTokens: Number.isInteger(tokens) && tokens >= 1 && tokens <= MOST_TOKENS ? tokens : PLAIN.maxTokens,
    colour: state["colour"] === "none" ? false : readName(state["colour"] ?? ""),
  };
}

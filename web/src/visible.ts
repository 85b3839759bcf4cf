// Text from strangers made safe to look at: what cannot be seen or would turn a line around is shown as a symbol. Not for HTML.

// Joiners spell words (Persian, Hindi, emoji families) and Arabic number signs are drawn; every other format character is not.
const KEPT = /[\u200c\u200d\u0600-\u0605\u06dd\u070f\u08e2]/;
const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;
const LONGEST = 4000;

/** A token that is nothing but bytes of a character. */
export const BYTE = /^ *(?:<0x[0-9A-Fa-f]{2}>)+$/;

const LEADS: [number, number, number][] = [[0xc2, 0xdf, 2], [0xe0, 0xef, 3], [0xf0, 0xf4, 4]];

/** For each token that ends a character which is cut over several tokens, that character: bytes alone cannot be read. */
export function wholes(tokens: string[]): (string | undefined)[] {
  const found: (string | undefined)[] = new Array(tokens.length);
  let bytes: number[] = [], need = 0;
  tokens.forEach((token, i) => {
    if (!token.includes("<0x")) { need = 0; return; }
    for (const [, byte, letters] of token.matchAll(/<0x([0-9A-Fa-f]{2})>|([^<]+|<)/g)) {
      if (letters !== undefined || byte === undefined) { need = 0; continue; }
      const value = parseInt(byte, 16), lead = LEADS.find(([low, high]) => value >= low && value <= high);
      if (lead) { bytes = [value]; need = lead[2]; } else if (need && value >= 0x80 && value < 0xc0) bytes.push(value); else need = 0;
      if (!need || bytes.length < need) continue;
      need = 0;
      const letter = new TextDecoder().decode(new Uint8Array(bytes));
      if (!letter.includes("\ufffd")) found[i] = (found[i] ?? "") + visible(letter);
    }
  });
  return found;
}

function symbol(letter: string): string {
  if (letter === "\n") return "⏎";
  if (letter === "\t") return "⇥";
  if (KEPT.test(letter)) return letter;
  return `⟨${letter.codePointAt(0)!.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** `text` with control, format, private and surrogate characters as symbols; what is longer than anyone reads is cut, and says so. */
export function visible(text: string): string {
  const shown = text.length > LONGEST ? text.slice(0, LONGEST) : text;
  const seen = shown.replace(HIDDEN, symbol);
  return shown === text ? seen : `${seen}… (${text.length.toLocaleString("en")} characters)`;
}

/** A vocabulary entry on its own, where a leading space would not be seen. */
export function visibleToken(token: string): string {
  return visible(token).replace(/^ +| +$/g, (spaces) => "·".repeat(spaces.length));
}

/** A token as (spaces before it, what is left), both visible: a mark on a word does not cover the gap before it. */
export function parted(token: string): [string, string] {
  const body = token.trimStart(), gap = token.slice(0, token.length - body.length);
  return body && /^ +$/.test(gap) ? [gap, visible(body)] : ["", visible(token)];
}

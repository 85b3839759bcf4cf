// Hostile text is shown, and honest text is left as it is.
import { expect, test } from "vitest";
import { parted, visible, visibleToken, wholes } from "./visible";

test("what would steer a terminal or turn a line around is a symbol", () => {
  expect(visible("a\nb\x1b[31m\x00")).toBe("a⏎b⟨001B⟩[31m⟨0000⟩");
  expect(visible("abc\u202etxt\u2066\u200b")).toBe("abc⟨202E⟩txt⟨2066⟩⟨200B⟩");
  expect(visible("\ud800")).toBe("⟨D800⟩");
});

test("every script stays as it is, joiners and all", () => {
  for (const text of ["naïve 金门大桥", "می‌خواهم", "क्‍ष", "👩‍👩‍👧", "مارين", "עברית", "<0xE2>"]) expect(visible(text)).toBe(text);
});

test("a token a megabyte long is cut and says so", () => {
  const shown = visible("x".repeat(1_048_576));
  expect(shown.length).toBeLessThan(5000);
  expect(shown).toContain("1,048,576 characters");
});

test("spaces at a token's ends are seen", () => expect(visibleToken("  the ")).toBe("··the·"));

test("a token's parts are the token", () => {
  expect(["  the", " ", "\n x", "the "].map(parted)).toEqual([["  ", "the"], ["", " "], ["", "⏎ x"], ["", "the "]]);
});

test("a character that is cut over several tokens is said where it ends", () => {
  expect(wholes(["a", "<0xE2>", "<0x82>", "<0xAC>", "b"])).toEqual([undefined, undefined, undefined, "€", undefined]);
  expect(wholes([" <0xE9><0x87>", "<0x91><0xF0>", "<0x9F><0x91><0xA9>"])).toEqual([undefined, "金", "👩"]);
  expect(wholes(["<0xE2>", "x", "<0x82>", "<0xAC>"]).some(Boolean)).toBe(false);
  expect(wholes(["<0xE2>", "<0xE2>", "<0x82>", "<0xAC>"])[3]).toBe("€");
  expect(wholes(["<0xE0>", "<0x80>", "<0x80>"]).some(Boolean)).toBe(false); // too long a form: no character
  expect(wholes(["<0xE2>", "<0x80>", "<0xAE>"])[2]).toBe("⟨202E⟩"); // would turn the line around
  expect(wholes(["<", "0", "x", "E", "2", ">"]).some(Boolean)).toBe(false);
});

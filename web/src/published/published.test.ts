// Reading a published folder: numbers of 16 bits, letters of any case, and blocks that are none. The whole is tested in a browser.
import { expect, test } from "vitest";
import { half, unpack } from "./columns";
import { fold } from "./lines";

test("16-bit floats are what IEEE 754 says", () => {
  expect([0x0000, 0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x3555].map(half)).toEqual([0, 1, -2, 65504, 2 ** -14, 2 ** -24, 0.333251953125]);
  expect([half(0x7c00), half(0xfc00), half(0x7e00)]).toEqual([Infinity, -Infinity, NaN]);
});

test("case does not matter where it changes the length of a word", () => {
  expect([fold("Straße"), fold("ÎLE"), fold("大桥")]).toEqual([fold("STRASSE"), "île", "大桥"]);
});

test("what is no block is named, not half read", () => {
  for (const bytes of [[], [1, 2, 3], [0x28, 0xb5, 0x2f, 0xfd, 0x24]]) expect(() => unpack(Uint8Array.from(bytes), "lines.bin, block 7")).toThrow("lines.bin, block 7: damaged.");
});

// Numbers read as a person would write them.
import { expect, test } from "vitest";
import { axis, compact, fixed, percent, seconds, short, strength, ticks } from "./numbers";

test("what is undefined is a dash, and nothing has no sign", () => {
  for (const write of [short, percent, compact, seconds]) expect([write(null), write(undefined), write(NaN)]).toEqual(["–", "–", "–"]);
  expect([fixed(-0.0001, 2), fixed(-0.5, 2)]).toEqual(["0.00", "−0.50"]);
});

test("rare is not written as never", () => {
  expect([0, 0.5, 0.012, 0.00012, 0.0000012].map(percent)).toEqual(["0 %", "50 %", "1.2 %", "0.01 %", "1e−6"]);
});

test("what never fired has no maximum to have a share of", () => {
  expect([strength(3, 12), strength(3, 0), strength(3, null)]).toEqual(["3 · 25 % of maximum", "3 · never fired in the catalogue", "3 · never fired in the catalogue"]);
});

test("what rounds up to the next unit is written in that unit", () => {
  expect([9.96, 59.7, 119.7, 3599.8, 7199, 5400].map(seconds)).toEqual(["10 s", "1 min 0 s", "2 min 0 s", "1 h 0 min", "2 h 0 min", "1 h 30 min"]);
  expect([9996, 12_345, 999_499, 999_999, 999_999_999].map(compact)).toEqual(["9,996", "12.3k", "999k", "1M", "1G"]);
});

test("ticks are round and inside", () => {
  expect(ticks(0, 1, 4)).toEqual([0, 0.5, 1]);
  expect(ticks(-0.31, 0.42, 4)).toEqual([0]);
  expect(ticks(3, 3, 4)).toEqual([3]);
});

test("values along an axis are told apart", () => {
  expect(axis([0.001, 0.0003])).toEqual(["0.0010", "0.0003"]);
  expect(axis([0.998, 1])).toEqual(["0.998", "1.000"]);
  expect(axis([0, 20_000])).toEqual(["0", "20k"]);
});

// Every row of a list can be reached, also where the list is taller than a browser can make an element.
import { expect, test } from "vitest";
import { rowsAt, scrollTo } from "./window";

test.each([5, 1000, 34_000_000])("the ends of %i rows", (total) => {
  const first = rowsAt(total, 38, 600, 0);
  expect([first.first, first.shift]).toEqual([0, 0]);
  const last = rowsAt(total, 38, 600, first.height - 600);
  expect(last.first + last.n).toBe(total);
});

test("scrolling to a row shows the whole of it", () => {
  for (const total of [50, 1_000_000, 34_000_000]) for (const row of [0, 1, 30, Math.floor(total / 3), total - 2, total - 1]) {
    const seen = rowsAt(total, 38, 600, scrollTo(row, total, 38, 600, 1234));
    const top = (row - seen.first) * 38 - seen.shift;
    expect(top).toBeGreaterThan(-0.5);
    expect(top + 38).toBeLessThan(600.5);
  }
});

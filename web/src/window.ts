// Which rows of a very long list are on the screen. A browser cannot make an element as tall as a million rows, so the scroll bar
// stands for the list's length in proportion once that is too much. Arithmetic only.

const TALLEST = 6_000_000; // pixels; the strictest browser stops at some 17 million

export interface Rows { height: number; first: number; n: number; shift: number }

/** How tall the list pretends to be, the first row to draw, how many, and how far up they are moved. */
export function rowsAt(total: number, rowHeight: number, viewHeight: number, scrollTop: number): Rows {
  const real = total * rowHeight, height = Math.min(real, TALLEST);
  const most = Math.max(1, height - viewHeight);
  const offset = (Math.min(Math.max(scrollTop, 0), most) / most) * Math.max(0, real - viewHeight);
  const first = Math.floor(offset / rowHeight);
  return { height, first, n: Math.min(total - first, Math.ceil(viewHeight / rowHeight) + 1), shift: offset - first * rowHeight };
}

/** Where to scroll so that a row is wholly seen; where it is already, the same place. */
export function scrollTo(row: number, total: number, rowHeight: number, viewHeight: number, scrollTop: number): number {
  const real = total * rowHeight, height = Math.min(real, TALLEST), most = Math.max(1, height - viewHeight);
  const factor = Math.max(1e-9, Math.max(0, real - viewHeight) / most), offset = scrollTop * factor;
  const wanted = Math.min(Math.max(offset, (row + 1) * rowHeight - viewHeight), row * rowHeight);
  return wanted === offset ? scrollTop : wanted / factor;
}

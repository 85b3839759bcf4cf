// What was said, as a tree: to say an earlier message otherwise, or to have it answered with other numbers, begins a branch and loses none.

/** A message of the person. What is answered to it follows from it, from what was said before, and from the seed. */
export interface Said { text: string; seed: number }
export interface Turn extends Said { id: number; before: number }
export interface History {
  turns: readonly Turn[];
  /** Behind each turn the one that is shown, by ids. */
  shown: Readonly<Record<number, number>>;
}

const START = -1;
export const NOTHING_SAID: History = { turns: [], shown: {} };

/** The turns that are shown, from the first on. */
export function path({ turns, shown }: History): Turn[] {
  const found: Turn[] = [];
  for (let next = shown[START]; next !== undefined; next = shown[next]) found.push(turns[next]!);
  return found;
}

function add({ turns, shown }: History, before: number, { text, seed }: Said): History {
  const id = turns.length;
  return { turns: [...turns, { id, before, text, seed }], shown: { ...shown, [before]: id } };
}

export const say = (history: History, said: Said): History => add(history, path(history).at(-1)?.id ?? START, said);
/** A turn otherwise, beside what it was; what came behind it stays behind what it was. */
export const sayOtherwise = (history: History, id: number, said: Partial<Said>): History => add(history, history.turns[id]!.before, { ...history.turns[id]!, ...said });
/** The turns that stand at a place, as they came. */
export const branches = ({ turns }: History, id: number): Turn[] => turns.filter(({ before }) => before === turns[id]!.before);

/** The branch beside this one: `by` places on. */
export function turnTo(history: History, id: number, by: number): History {
  const all = branches(history, id), to = all[all.findIndex((turn) => turn.id === id) + by];
  return to ? { ...history, shown: { ...history.shown, [to.before]: to.id } } : history;
}

/** The history in which exactly this is shown, on branches that are there already as far as they go. */
export function follow(history: History, said: Said[]): History {
  let before = START, found = history;
  for (const { text, seed } of said) {
    const known = found.turns.find((turn) => turn.before === before && turn.text === text && turn.seed === seed);
    found = known ? { ...found, shown: { ...found.shown, [before]: known.id } } : add(found, before, { text, seed });
    before = found.shown[before]!;
  }
  const { [before]: _, ...shown } = found.shown;
  return { ...found, shown };
}

// A conversation with a run's model, as it is and steered: what is asked when, and the answers.
//
// An answer follows from what was said, its seed, the sampling and the steering, and is kept under exactly these. So a slider that goes
// back shows what was there at once, a link shows what its sender saw, and nothing is asked twice; but for a feature that is wanted along
// a text for which it was not read: then the same text is written again, unseen.
import { SvelteMap } from "svelte/reactivity";
import { PLAIN, type Talk } from "./address";
import { follow, NOTHING_SAID, path, type History, type Turn } from "./history";
import { ask, type Message, type Question, type Stamp } from "./server";
import { asInterventions, isSame, readingsOf, steers, type LatentName } from "./steering";
import type { Reading } from "./tokens";

export const SIDES = ["original", "steered"] as const;
export type Side = (typeof SIDES)[number];

export interface Answer {
  state: "waiting" | "writing" | "done" | "stopped" | "failed";
  text: string;
  readings: readonly Reading[];
  /** What the values of the readings are of. */
  read: readonly LatentName[];
  finish: string | null;
  stamp: Stamp | null;
  problem: unknown;
}
interface Running { key: string; read: readonly LatentName[]; stop: AbortController }

const EMPTY: Omit<Answer, "read"> = { state: "waiting", text: "", readings: [], finish: null, stamp: null, problem: null };
const MOST_KEPT = 400;

export class Conversation {
  history = $state.raw<History>(NOTHING_SAID);
  /** How it is asked: all of the address but what was said. */
  how = $state.raw<Omit<Talk, "said">>(PLAIN);
  /** The id of the run's model at the server; null: not known yet. */
  model = $state.raw<string | null>(null);
  /** Has the model been loaded, as far as is known here? */
  hasAnswered = $state(false);
  private readonly answers = new SvelteMap<string, Answer>();
  private readonly running = new SvelteMap<Side, Running>();
  private timer: ReturnType<typeof setTimeout> | undefined;

  // Getters: what is derived dies with the page that made it, and a conversation outlives its page.
  get turns(): Turn[] {
    return path(this.history);
  }
  get isSteered(): boolean {
    return this.how.variant !== "" || this.how.settings.some(steers);
  }
  /** What is read at every token: all that is set, and what colours. */
  get read(): LatentName[] {
    return readingsOf([...this.how.settings, ...(this.how.colour ? [this.how.colour] : [])]);
  }
  get isBusy(): boolean {
    return this.running.size > 0;
  }
  get talk(): Talk {
    return { ...this.how, said: this.turns.map(({ text, seed }) => ({ text, seed })) };
  }

  /** Take over what an address says. */
  load({ said, ...how }: Talk): void {
    this.how = how;
    this.history = follow(this.history, said);
    this.go();
  }

  answer(side: Side, i: number): Answer | undefined {
    return this.answers.get(this.key(side, i));
  }

  /** Ask for what is not answered yet, after a pause: whoever drags a slider has not said yet where it goes. What is no longer wanted is stopped at once. */
  go(pause = 0): void {
    clearTimeout(this.timer);
    this.end(({ key, read }, side) => !(this.isAsked(side) && this.covers(read) && this.turns.some((_, i) => this.key(side, i) === key)), (key) => this.answers.delete(key));
    this.timer = setTimeout(() => { for (const side of SIDES) void this.next(side); }, pause);
  }

  /** What is being written stays as it is. */
  stop(): void {
    clearTimeout(this.timer);
    this.end(() => true, (key) => this.put(key, { state: "stopped" }));
  }

  /** Nobody looks any more: what is not written to its end is asked for when somebody does again. */
  leave(): void {
    clearTimeout(this.timer);
    this.end(() => true, (key) => this.answers.delete(key));
  }

  /** Ask again for what failed or was stopped, and for what follows from it. */
  again(side: Side, from: number): void {
    for (let i = from; i < this.turns.length; i++) this.answers.delete(this.key(side, i));
    this.go();
  }

  private end(which: (running: Running, side: Side) => boolean, then: (key: string) => void): void {
    for (const [side, running] of [...this.running]) {
      if (!which(running, side)) continue;
      this.running.delete(side);
      if (this.answers.get(running.key)?.state !== "done") then(running.key); // done: it was only being read
      running.stop.abort();
    }
  }

  private isAsked(side: Side): boolean {
    return side === "original" || this.isSteered;
  }

  private key(side: Side, i: number): string {
    const { variant, settings, temperature, maxTokens } = this.how;
    return JSON.stringify([side === "steered" ? [variant, asInterventions(settings)] : [], temperature, maxTokens, this.turns.slice(0, i + 1).map(({ text, seed }) => [text, seed])]);
  }

  /** Is all that is wanted among what was read? */
  private covers(read: readonly LatentName[]): boolean {
    return this.read.every((wanted) => read.some((each) => isSame(each, wanted)));
  }

  private put(key: string, change: Partial<Answer>): void {
    const before = this.answers.get(key);
    if (before) this.answers.set(key, { ...before, ...change });
  }

  /** The first turn that is not answered. Each answer is asked for with those before it. */
  private async next(side: Side): Promise<void> {
    if (this.running.has(side) || !this.isAsked(side) || this.model === null) return;
    const messages: Message[] = [];
    for (const [i, { text, seed }] of this.turns.entries()) {
      const key = this.key(side, i), known = this.answers.get(key);
      messages.push({ role: "user", content: text });
      if (known?.state === "failed") return;
      if (!known || (known.state === "done" && !this.covers(known.read))) {
        await this.write(side, key, this.question(side, messages, seed, this.model));
        return;
      }
      messages.push({ role: "assistant", content: known.text });
    }
  }

  private question(side: Side, messages: Message[], seed: number, model: string): Question {
    const { variant, settings, temperature, maxTokens } = this.how, interventions = asInterventions(settings);
    const steering = { ...(variant ? { variant } : {}), ...(interventions.length ? { interventions } : {}) };
    return { model, messages, temperature, max_tokens: maxTokens, seed, ...(side === "steered" ? { steering } : {}), ...(this.read.length ? { readings: this.read } : {}) };
  }

  private async write(side: Side, key: string, question: Question): Promise<void> {
    const read = question.readings ?? [], running = { key, read, stop: new AbortController() }, isMine = (): boolean => this.running.get(side) === running;
    const before = this.answers.get(key);
    let answer: Answer = { ...EMPTY, read };
    this.running.set(side, running);
    for (const old of this.answers.keys()) if (this.answers.size >= MOST_KEPT) this.answers.delete(old);
    if (!before) this.answers.set(key, answer);
    try {
      for await (const part of ask(question, running.stop.signal)) {
        if (!isMine()) return;
        this.hasAnswered = true;
        const { text, readings, finish, stamp } = answer;
        answer = { ...answer, state: "writing", text: text + part.content, readings: part.readings.length ? [...readings, ...part.readings] : readings, finish: part.finish ?? finish, stamp: part.stamp ?? stamp };
        if (!before) this.answers.set(key, answer);
      }
      if (isMine()) this.answers.set(key, { ...answer, state: "done" });
    } catch (problem) {
      if (isMine()) this.answers.set(key, { ...(before ?? answer), state: "failed", problem });
    }
    if (!isMine()) return;
    this.running.delete(side);
    void this.next(side);
  }
}

/** One for each run: who looks at a feature and comes back finds all branches. */
const conversations = new Map<string, Conversation>();
export function conversationWith(run: string): Conversation {
  const found = conversations.get(run) ?? new Conversation();
  conversations.set(run, found);
  return found;
}

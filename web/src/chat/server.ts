// The server's /v1, which speaks as OpenAI's API does, with `steering` and `readings` beside (docs/chat.md).
import { ApiError } from "../facts";
import { eventsOf } from "./events";
import type { Intervention, LatentName, Swept } from "./steering";
import type { Reading } from "./tokens";

export interface ModelLine {
  id: string;
  mohole: { run: string; model: string; variant: string | null; is_here: boolean; interventions?: Intervention[]; swept?: Swept[] | null };
}
export interface Stamp { n_tokens: number; n_fired: number; n_moved: number; key: string }
export interface Message { role: "user" | "assistant"; content: string }
export interface Question {
  model: string; messages: Message[]; temperature: number; max_tokens: number; seed: number;
  steering?: { variant?: string; interventions?: Intervention[] }; readings?: LatentName[];
}
/** A part of an answer, as it comes. */
export interface Part { content: string; readings: Reading[]; finish: string | null; stamp: Stamp | null }

interface Choice { delta?: { content?: string | null }; finish_reason?: string | null; mohole?: { readings?: Reading[]; stamp?: Stamp } }
interface Refusal { message?: string; code?: string | null }

const BASE = new URL("v1/", document.baseURI);
const KEY = "mohole.key"; // kept for this tab only
export const setKey = (key: string): void => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

const NEXT: Record<string, string> = {
  context_length_exceeded: "Say less, or begin a new conversation.",
  rate_limit_exceeded: "Wait a little, then try again.",
  overloaded: "Others are being answered; try again in a little while.",
  shutting_down: "The server is ending; try again when it is back.",
  timeout: "Ask for fewer tokens, or try again when the server has less to do.",
  not_steered: "The text is held back, because it may not be what was asked for. Try again; if it stays so, the model's hookpoints are not what mohole takes them for.",
};

function refused(status: number, { message, code }: Refusal, wait: string | null = null): ApiError {
  const next = wait && /^\d+$/.test(wait) ? `Try again in ${wait} s.` : (NEXT[code ?? ""] ?? null);
  return new ApiError(status, message || `The server answered ${status}.`, next);
}

async function answered(path: string, init: RequestInit): Promise<Response> {
  const key = sessionStorage.getItem(KEY);
  let response: Response;
  try {
    response = await fetch(new URL(path, BASE), { ...init, headers: { ...init.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) } });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "The server does not answer.", "Is `mohole serve` still running?");
  }
  if (response.ok && /^(application\/json|text\/event-stream)/.test(response.headers.get("content-type") ?? "")) return response;
  const body: unknown = await response.json().catch(() => null);
  if (body && typeof body === "object" && "error" in body && body.error && typeof body.error === "object") throw refused(response.status, body.error as Refusal, response.headers.get("retry-after"));
  if (response.ok || response.status === 404) throw new ApiError(404, "Nobody can talk to a model here.", "`mohole serve` without --no-chat answers at /v1.");
  throw refused(response.status, {});
}

export async function getModels(): Promise<ModelLine[]> {
  const { data } = (await (await answered("models", {})).json()) as { data: ModelLine[] };
  return data;
}

/** The answer in parts. Fails with an ApiError, also in its middle: an answer that has no end is none. */
export async function* ask(question: Question, signal: AbortSignal): AsyncGenerator<Part, void, undefined> {
  const { body } = await answered("chat/completions", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ ...question, stream: true }), signal });
  if (body) for await (const event of eventsOf(body)) {
    if (event === "[DONE]") return;
    const said = JSON.parse(event) as { choices?: Choice[]; error?: Refusal };
    if (said.error) throw refused(500, said.error);
    const choice = said.choices?.[0];
    if (choice) yield { content: choice.delta?.content ?? "", readings: choice.mohole?.readings ?? [], finish: choice.finish_reason ?? null, stamp: choice.mohole?.stamp ?? null };
  }
  throw new ApiError(0, "The connection ended before the answer did.", "Try again; if it stays so, see what `mohole serve` says.");
}

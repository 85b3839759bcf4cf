// Events cut anywhere, addresses that say everything, and branches of which none is lost.
import { expect, test } from "vitest";
import { PLAIN, readTalk, writeTalk, type Talk } from "./address";
import { EventReader, eventsOf } from "./events";
import { branches, follow, NOTHING_SAID, path, say, sayOtherwise, turnTo } from "./history";
import { readRoute, writeRoute } from "../route";
import { asInterventions, asSettings, judged, reach, readingsOf, readSettings, startingTimes, usableOf, writeSettings, type Setting } from "./steering";
import { groups } from "./tokens";

const STREAM = ': hello\r\ndata: {"a": "桥 🌉"}\r\n\r\nevent: x\ndata:one\ndata: two\n\nid: 7\n\ndata: [DONE]\r\rdata: never whole';
const WHOLE = ['{"a": "桥 🌉"}', "one\ntwo", "[DONE]"];

test("events are the same wherever their bytes are cut", async () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (let size = 1; size <= bytes.length; size++) {
    const body = new ReadableStream<Uint8Array>({ start(sink) { for (let i = 0; i < bytes.length; i += size) sink.enqueue(bytes.slice(i, i + size)); sink.close(); } });
    const found: string[] = [];
    for await (const event of eventsOf(body)) found.push(event);
    expect(found).toEqual(WHOLE);
  }
});

test("an event is given as soon as it is whole", () => {
  const reader = new EventReader();
  expect([reader.push("data: 1\n"), reader.push("\nda"), reader.push("ta: 2\r"), reader.push("\n\r"), reader.push("\n")]).toEqual([[], ["1"], [], [], ["2"]]);
});

test("who stops listening closes the connection", async () => {
  let isClosed = false;
  const body = new ReadableStream<Uint8Array>({ pull(sink) { sink.enqueue(new TextEncoder().encode("data: x\n\n")); }, cancel() { isClosed = true; } });
  for await (const event of eventsOf(body)) if (event) break;
  expect(isClosed).toBe(true);
});

const BRIDGE: Setting = { kind: "clamp", hookpoint: "resid_post.1", latent: 651, times: 1.5, part: "response" };
const OTHERS: Setting[] = [
  { kind: "add", hookpoint: "a*b c/%&=+|桥", latent: 0, times: -0.25, part: "all" },
  { kind: "ablate", hookpoint: "mlp_out.3", latent: 12, times: 1, part: "prompt" },
  { kind: "read", hookpoint: "resid_post.1", latent: 651, times: 1, part: "all" },
];
const TALKS: Talk[] = [
  PLAIN,
  { ...PLAIN, variant: "golden-gate", said: [{ text: "What are you?", seed: 1 }], colour: false },
  { ...PLAIN, settings: [BRIDGE, ...OTHERS], colour: { hookpoint: "a*b", latent: 3 }, temperature: 0.7, maxTokens: 200, said: [{ text: "a|b\\|c\\", seed: 5 }, { text: "ما أنت؟\n你是谁 🌉 &x=#", seed: 12 }, { text: "\\\\", seed: 1 }] },
  { ...PLAIN, said: [{ text: "|", seed: 3 }, { text: "x", seed: 3 }] },
  { ...PLAIN, said: [{ text: "x", seed: 1 }, { text: "|", seed: 1 }] },
];
test.each(TALKS)("an address says everything, and saying it again gives the same: $said", (talk) => {
  const address = writeRoute({ page: "chat", run: "demo", hookpoint: "resid_post.1", state: writeTalk(talk) });
  expect(readTalk(readRoute(address).state)).toEqual(talk);
  expect(readRoute(address).page).toBe("chat");
});

test("what an address cannot mean is left out, and nothing else is", () => {
  expect(readSettings("clamp*resid_post.1*651*NaN melt*a*1*1 clamp**1*1 clamp*a*-1*1 clamp*a*1*2*sideways clamp*a*1* clamp*%E0%A4%A*7*2")).toEqual([{ ...BRIDGE, hookpoint: "%E0%A4%A", latent: 7, times: 2, part: "all" }]);
  expect(readTalk({ temperature: "hot", tokens: "-3", seeds: "x", say: "a", colour: "*" })).toEqual({ ...PLAIN, said: [{ text: "a", seed: 1 }] });
  expect(writeTalk({ ...PLAIN, said: [{ text: "x".repeat(5000), seed: 9 }] })).toEqual(writeTalk(PLAIN));
});

test("settings are what the server takes, and sliders again", () => {
  const sent = asInterventions([BRIDGE, ...OTHERS]);
  expect(sent).toEqual([
    { kind: "clamp", latent: 651, hookpoint: "resid_post.1", times_max: 1.5, where: { part: "response" } },
    { kind: "add", of: { kind: "latent", latent: 0, hookpoint: "a*b c/%&=+|桥" }, times_max: -0.25 },
    { kind: "ablate", latent: 12, hookpoint: "mlp_out.3", where: { part: "prompt" } },
  ]);
  expect(asSettings(sent)).toEqual([BRIDGE, OTHERS[0], { ...OTHERS[1], times: 0 }]);
  expect(writeSettings(asSettings([sent[0]!])!)).toBe("clamp*resid_post.1*651*1.5*response");
  for (const more of [{ kind: "clamp", latent: 1, hookpoint: "a", value: 3 }, { kind: "clamp", latent: 1, hookpoint: "a", times_max: 1, when: {} }, { kind: "cap", of: { kind: "latent", latent: 1, hookpoint: "a" }, high: 1 },
    { kind: "add", of: { kind: "vector", values: [1], hookpoint: "a" }, value: 1 }, { kind: "add", of: { kind: "latent", latent: 1, hookpoint: "a" }, times_max: 1, when: {} }, { kind: "ablate", latent: 1, hookpoint: "a", where: { part: "all", stop: 3 } }]) expect(asSettings([more])).toBe(null);
});

test("each latent is read once, and a slider reaches beyond where it was let go", () => {
  expect(readingsOf([BRIDGE, ...OTHERS])).toEqual([{ hookpoint: "resid_post.1", latent: 651 }, { hookpoint: "a*b c/%&=+|桥", latent: 0 }, { hookpoint: "mlp_out.3", latent: 12 }]);
  expect(readingsOf(Array.from({ length: 20 }, (_, latent) => ({ hookpoint: "a", latent })))).toHaveLength(16);
  expect([0, 3.9, 4, 9, -2, -7].map(reach)).toEqual([[-2, 4], [-2, 4], [-2, 8], [-2, 16], [-4, 4], [-8, 4]]);
});

test("branches", () => {
  const texts = (history = talk): string => path(history).map(({ text, seed }) => `${text}${seed}`).join(" ");
  let talk = say(say(say(NOTHING_SAID, { text: "a", seed: 1 }), { text: "b", seed: 1 }), { text: "c", seed: 1 });
  expect(texts()).toBe("a1 b1 c1");
  talk = sayOtherwise(talk, 1, { text: "B" });
  expect(texts()).toBe("a1 B1");
  talk = say(talk, { text: "d", seed: 2 });
  expect(branches(talk, 1).map(({ text }) => text)).toEqual(["b", "B"]);
  expect(texts(turnTo(talk, 3, -1))).toBe("a1 b1 c1");
  expect(texts(turnTo(turnTo(talk, 3, -1), 1, 1))).toBe("a1 B1 d2");
  expect(turnTo(talk, 3, 1)).toBe(talk);
  talk = sayOtherwise(talk, 0, { seed: 9 });
  expect(texts()).toBe("a9");
  const n = talk.turns.length;
  talk = follow(talk, [{ text: "a", seed: 1 }, { text: "b", seed: 1 }]);
  expect([texts(), talk.turns.length]).toEqual(["a1 b1", n]);
  talk = follow(talk, [{ text: "a", seed: 1 }, { text: "new", seed: 3 }]);
  expect([texts(), talk.turns.length]).toEqual(["a1 new3", n + 1]);
  expect(texts(follow(talk, []))).toBe("");
});

test("tokens that are one character together are one thing to press", () => {
  const token = (text: string, name: string, value: number): { text: string; token: string; id: number; values: number[] } => ({ text, token: name, id: 0, values: [value] });
  const found = groups([token("", "<0xE2>", 1), token("", "<0x82>", 3), token("€", "<0xAC>", 2), token(" x", " x", 0), token("", "<0xE2>", 5)]);
  expect(found.map(({ text, tokens }) => [text, tokens.map((each) => each.token)])).toEqual([["€", ["<0xE2>", "<0x82>", "<0xAC>"]], [" x", [" x"]], ["", ["<0xE2>"]]]);
  expect(found.map(({ values }) => values)).toEqual([[3], [0], [5]]);
});

test("a usable range is that of the same clamp at the same tokens", () => {
  const clamp = { kind: "clamp", latent: 7, hookpoint: "resid_post.1", times_max: 1 };
  const swept = [
    { interventions: [{ ...clamp, times_max: 1.5 }], usable: { low: 9, high: 9 } }, // of a variant, in times what it says
    { interventions: [clamp, { ...clamp, latent: 8 }], usable: { low: 8, high: 8 } },
    { interventions: [clamp], usable: { low: 1, high: 2 } },
    { interventions: [{ ...clamp, where: { part: "response" } }], usable: { low: null, high: null } },
  ];
  const setting: Setting = { kind: "clamp", hookpoint: "resid_post.1", latent: 7, times: 4, part: "all" };
  expect(usableOf(setting, swept)).toEqual({ low: 1, high: 2 });
  expect(usableOf({ ...setting, part: "response" }, swept)).toEqual({ low: null, high: null });
  for (const other of [{ latent: 8 }, { hookpoint: "resid_post.2" }, { kind: "add" as const }, { part: "prompt" as const }]) expect(usableOf({ ...setting, ...other }, swept)).toBeUndefined();
});

test("a strength outside of what a sweep found usable is objected to, in the numbers that were tried", () => {
  const usable = { low: 1.25, high: 1.375 };
  expect([1.25, 1.3, 1.375].map((times) => judged(times, usable))).toEqual(Array(3).fill({ said: "usable at 1.25 to 1.375 ×", isAgainst: false }));
  for (const [times, which] of [[1.2, "below"], [1.38, "above"], [-1.3, "below"]] as const) expect(judged(times, usable)).toMatchObject({ said: expect.stringContaining(`${which} what is usable, 1.25 to 1.375 ×`), isAgainst: true });
  expect(judged(1.6, { low: 1.5, high: 1.5 }).said).toContain("usable, 1.5 ×");
  expect(judged(1, { low: null, high: null }).isAgainst).toBe(true);
  expect(judged(99, undefined)).toEqual({ said: "", isAgainst: false });
});

test("a feature that was swept starts at the most that is usable", () => {
  const at = { hookpoint: "resid_post.1", latent: 7 }, clamp = { kind: "clamp", ...at, times_max: 1 };
  expect(startingTimes(at, [{ interventions: [clamp], usable: { low: 1, high: 1.375 } }])).toBe(1.375);
  const ofOthers = [{ interventions: [{ ...clamp, where: { part: "response" } }], usable: { low: 1, high: 2 } }, { interventions: [clamp], usable: { low: null, high: null } }];
  for (const swept of [[], ofOthers]) expect(startingTimes(at, swept)).toBe(1.5);
});

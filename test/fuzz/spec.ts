/** A case: connections, what their workloads write, and what happens to it. Plain data, so that it can be printed. */
import fc from "fast-check";
import type { SuiteName } from "./keys.ts";
import { suites } from "./keys.ts";
import type { Proof } from "./model.ts";

export interface RecordSpec {
  readonly kind:
    | "body"
    | "request" /* with a placeholder or more */
    | "refused" /* the same, with a reason against it */
    | "unheard" /* sealed by code that nobody hears */
    | "rekey" /* KeyUpdate between requests: another key follows */
    | "rekey-amid" /* in the middle of one */
    | "forged" /* not what the cipher side has heard */
    | "garbage" /* not TLS */;
  /** Bytes of text. */
  readonly length: number;
  /** Fractions of what is there. */
  readonly offset: number;
  readonly size: number;
  readonly edits: number;
  readonly proof: Proof;
}

export interface ConnectionSpec {
  readonly suite: SuiteName;
  readonly ipv6: boolean;
  readonly sequence: number;
  /** Its SYN has been seen. */
  readonly known: boolean;
  /** Bytes of the ClientHello in the SYN. */
  readonly early: number;
  readonly wrapping: number;
  readonly records: readonly RecordSpec[];
}

export type ActionSpec = { readonly on: number } & (
  | {
      readonly what: "send";
      readonly from:
        | "next" /* new bytes */
        | "back" /* some old ones before them */
        | "gap" /* as if a segment before had been lost on its way to us */
        | "hole" /* anywhere among what is not acknowledged */
        | "first" /* what the server misses */
        | "tail" /* the last bytes once more */
        | "probe" /* one byte before what is not acknowledged */
        | "same" /* the last segment again */;
      readonly by: number;
      readonly size: number;
      /** It leaves, and does not arrive. */
      readonly lost: boolean;
      readonly wrapping: number;
      readonly segmentBytes: number;
      readonly fin: boolean;
    }
  | { readonly what: "acknowledge"; readonly how: "all" | "less" | "one-more" | "unsent" | "seen"; readonly by: number }
  | { readonly what: "attest"; readonly answer: "yes" | "refused" | "unknown" }
  | { readonly what: "close"; readonly how: "fin" | "rst" | "rst-with-data" | "peer-fin" | "peer-rst" | "both" }
  | { readonly what: "reopen" | "bare" | "syn-again" }
  | {
      readonly what: "fragments";
      readonly back: number;
      readonly size: number;
      readonly cut: number;
      readonly identification: number;
      readonly lastFirst: boolean;
    }
  | { readonly what: "rewrite"; readonly back: number; readonly size: number; readonly at: number; readonly by: number }
);

export interface CaseSpec {
  readonly connections: readonly ConnectionSpec[];
  readonly actions: readonly ActionSpec[];
}

const fraction = fc.integer({ min: 0, max: 1000 }).map((part) => part / 1000);

function weighted<T extends string>(weights: Readonly<Record<T, number>>): fc.Arbitrary<T> {
  const entries = Object.entries<number>(weights) as [T, number][];
  return fc.oneof(...entries.map(([value, weight]) => ({ weight, arbitrary: fc.constant(value) })));
}

const length = fc.oneof(
  fc.integer({ min: 1, max: 60 }),
  { weight: 3, arbitrary: fc.integer({ min: 26, max: 200 }) },
  fc.integer({ min: 60, max: 1500 }),
  { weight: 1, arbitrary: fc.constantFrom(255, 256, 257, 511, 512, 513, 4096, 16384) },
);

const honest = { body: 8, request: 14, refused: 2, rekey: 1 };
const dishonest = { ...honest, unheard: 1, "rekey-amid": 1, forged: 1, garbage: 1 };

const record = (kinds: Partial<Record<RecordSpec["kind"], number>>) =>
  fc.record({
    kind: weighted(kinds as Record<RecordSpec["kind"], number>),
    length,
    offset: fraction,
    size: fraction,
    edits: fc.integer({ min: 1, max: 4 }),
    proof: weighted<Proof>({ flow: 4, record: 1, none: 1 }),
  });

const connection: fc.Arbitrary<ConnectionSpec> = fc
  .record({
    suite: fc.constantFrom(...(Object.keys(suites) as SuiteName[])),
    ipv6: fc.boolean(),
    sequence: fc.oneof(
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      fc.integer({ min: 2 ** 32 - 9000, max: 2 ** 32 - 1 }),
      fc.integer({ min: 2 ** 31 - 9000, max: 2 ** 31 }),
    ),
    known: weighted({ yes: 30, no: 1 }).map((text) => text === "yes"),
    early: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 90 })),
    wrapping: fc.nat(20),
    honest: fc.integer({ min: 0, max: 3 }),
  })
  .chain(({ honest: lies, ...rest }) =>
    fc
      .array(record(lies > 0 ? honest : dishonest), { minLength: 1, maxLength: 24, size: "max" })
      .map((records) => ({ ...rest, records })),
  );

const send = fc.record({
  what: fc.constant("send" as const),
  from: weighted({ next: 16, back: 2, gap: 1, hole: 3, first: 3, tail: 1, probe: 1, same: 1 }),
  by: fc.oneof(fc.nat(60), fc.nat(2500)),
  size: fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 500 }), fc.integer({ min: 1, max: 3200 })),
  lost: fc.boolean().chain((burst) => (burst ? fc.boolean() : fc.constant(false))),
  wrapping: fc.nat(20),
  segmentBytes: fc.constantFrom(0, 0, 536, 1448),
  fin: weighted({ no: 60, yes: 1 }).map((text) => text === "yes"),
});

const action: fc.Arbitrary<ActionSpec> = fc
  .record({
    on: fc.nat(2),
    rest: fc.oneof(
      { weight: 60, arbitrary: send },
      {
        weight: 14,
        arbitrary: fc.record({
          what: fc.constant("acknowledge" as const),
          how: weighted({ all: 8, less: 4, "one-more": 1, unsent: 1, seen: 1 }),
          by: fc.nat(400),
        }),
      },
      {
        weight: 3,
        arbitrary: fc.record({
          what: fc.constant("attest" as const),
          answer: weighted({ yes: 3, refused: 1, unknown: 2 }),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          what: fc.constant("close" as const),
          how: weighted({ fin: 2, rst: 1, "rst-with-data": 1, "peer-fin": 2, "peer-rst": 1, both: 2 }),
        }),
      },
      { weight: 1, arbitrary: fc.record({ what: fc.constantFrom("reopen", "bare", "bare", "syn-again") }) },
      {
        weight: 1,
        arbitrary: fc.record({
          what: fc.constant("fragments" as const),
          back: fc.oneof(fc.constant(0), fc.nat(1500)),
          size: fc.integer({ min: 1, max: 1400 }),
          cut: fraction,
          identification: fc.nat(2),
          lastFirst: fc.boolean(),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          what: fc.constant("rewrite" as const),
          back: fc.nat(1500),
          size: fc.integer({ min: 1, max: 600 }),
          at: fraction,
          by: fc.integer({ min: 1, max: 255 }),
        }),
      },
    ),
  })
  .map(({ on, rest }) => ({ ...rest, on }));

export const cases: fc.Arbitrary<CaseSpec> = fc.record({
  connections: fc.array(connection, { minLength: 1, maxLength: 3, size: "max" }),
  actions: fc.array(action, { maxLength: 150, size: "max" }),
});

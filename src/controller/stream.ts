/* Lines of JSON to who reads them, at the reader's pace: one that does not read must not fill our memory. */
import type { ServerResponse } from "node:http";
import type { AuditStore, Entry } from "./audit-store.ts";

export function beginStream(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store" });
}

/** Aborted when the reader is gone. */
export function whileRead(response: ServerResponse): AbortSignal {
  const ended = new AbortController();
  response.on("close", () => ended.abort());
  return ended.signal;
}

/** Until the other side has read. */
export async function sendText(response: ServerResponse, text: string, signal: AbortSignal): Promise<void> {
  if (text === "" || response.write(text)) return;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      response.off("drain", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    response.on("drain", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

export interface StoreStream {
  readonly store: AuditStore;
  /** With its end of line; empty: not for this reader. */
  readonly text: (entry: Entry) => string;
  /** Said when there has been nothing to say for `quietMs`. */
  readonly ping: () => string;
  readonly quietMs: number;
}

const most = 500;

/** What the store has and what comes to it, until `signal` is aborted. A reader that falls far behind misses what has left. */
export async function sendStore(response: ServerResponse, stream: StoreStream, signal: AbortSignal): Promise<void> {
  const { store, text, ping, quietMs } = stream;
  let position = 0;
  while (!signal.aborted) {
    const { entries, next } = store.since(position, most);
    position = next;
    if (entries.length > 0) {
      await sendText(response, entries.map(text).join(""), signal);
      continue;
    }
    const quiet = AbortSignal.timeout(quietMs);
    await store.news(position, AbortSignal.any([signal, quiet]));
    if (quiet.aborted && !signal.aborted) await sendText(response, ping(), signal);
  }
  response.end();
}

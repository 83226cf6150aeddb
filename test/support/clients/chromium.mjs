// fetch of headless Chromium, driven over its DevTools protocol by a pipe. The page that asks is made up here, so the server
// gets what README.md says and no more. It takes any certificate: it would want the root in a database of its own. ECH is
// off, which it offers to every server, if only as grease: what name is asked for could then not be told.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [, requests, big, names, ...urls] = process.argv.slice(2);
const header = process.env.HEADER ?? "authorization";
const profile = mkdtempSync(join(tmpdir(), "kloak-chromium-"));
const flags = [
  "headless",
  "no-sandbox",
  "disable-gpu",
  "disable-quic",
  "no-first-run",
  "disable-background-networking",
];
const more = ["disable-component-update", "disable-sync", "ignore-certificate-errors", "remote-debugging-pipe"];
writeFileSync(join(profile, "Local State"), JSON.stringify({ ssl: { ech_enabled: false } }));
const browser = spawn(
  "/usr/lib/chromium/chromium",
  [...flags, ...more, `user-data-dir=${profile}`].map((flag) => `--${flag}`),
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] },
);

let last = 0;
const waiting = new Map();
let session;

function send(method, params = {}) {
  last += 1;
  const id = last;
  browser.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: session })}\0`);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

let text = "";
browser.stdio[4].setEncoding("utf8").on("data", (more) => {
  const messages = (text + more).split("\0");
  text = messages.pop();
  for (const message of messages) hear(JSON.parse(message));
});

function hear({ id, method, params, result, error }) {
  if (method === "Fetch.requestPaused") {
    const responseHeaders = [{ name: "content-type", value: "text/html" }];
    void send("Fetch.fulfillRequest", { requestId: params.requestId, responseCode: 200, responseHeaders });
  }
  const waits = waiting.get(id);
  waiting.delete(id);
  if (error) waits?.reject(new Error(error.message));
  else waits?.resolve(result);
}

async function ask(path, init) {
  const expression = `fetch(${JSON.stringify(path)}, ${init}).then(async (r) => { await r.arrayBuffer(); return r.status; })`;
  const { result, exceptionDetails } = await send("Runtime.evaluate", { expression, awaitPromise: true });
  if (result.value !== 200) throw new Error(`status ${result.value}: ${exceptionDetails?.exception?.description}`);
}

try {
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  ({ sessionId: session } = await send("Target.attachToTarget", { targetId, flatten: true }));
  await send("Fetch.enable", { patterns: ["*/page", "*/favicon.ico"].map((urlPattern) => ({ urlPattern })) });
  const upload = `{ method: "POST", body: "0123456789abcdef".repeat(${Math.ceil(Number(big) / 16)}).slice(0, ${big}) }`;
  for (const url of urls) {
    await send("Page.navigate", { url: `${url}/page` });
    if (big !== "0") await ask("/big", upload);
    for (const name of names.split(" ")) {
      const headers = JSON.stringify({ [header]: `Bearer ${process.env[name]}` });
      for (let i = 0; i < Number(requests); i += 1) await ask(`/${name}`, `{ cache: "no-store", headers: ${headers} }`);
    }
    if (big !== "0") await ask("/big", upload);
  }
  session = undefined;
  const ended = once(browser, "exit");
  await send("Browser.close");
  await ended;
} finally {
  browser.kill();
  rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
}

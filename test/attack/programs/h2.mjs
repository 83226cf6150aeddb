// An HTTP/2 client that says what it is told: records in hexadecimal, one a line on standard input, in which {} stands for
// the placeholder. After each it waits for an answer on the stream named before the colon; 0: for nothing.
// Prints for each stream the answer's status byte length, or "nothing" after the limit.
import { readFileSync } from "node:fs";
import { connect } from "node:tls";
import { once } from "node:events";

const [ca, host, address, port, alpn] = process.argv.slice(2);
const socket = connect({ ca: readFileSync(ca), servername: host, host: address, port, ALPNProtocols: [alpn] });
await once(socket, "secureConnect");
let heard = Buffer.alloc(0);
socket.on("data", (chunk) => {
  heard = Buffer.concat([heard, chunk]);
});
socket.on("error", () => undefined);

/** Streams for which a HEADERS frame (type 1) or RST_STREAM (3) has come. */
function answered(stream) {
  for (let at = 0; at + 9 <= heard.length; at += 9 + heard.readUIntBE(at, 3)) {
    if ((heard[at + 3] === 1 || heard[at + 3] === 3) && heard.readUInt32BE(at + 5) === stream) return heard[at + 3];
  }
  return 0;
}

const limit = 3000; // longer than an answer takes, and long enough to see that none comes
const lines = readFileSync(0, "latin1").split("\n").filter(Boolean);
for (const line of lines) {
  const [stream, text] = line.split(":");
  const parts = text.split("{}").map((part) => Buffer.from(part, "hex"));
  const placeholder = Buffer.from(process.env.SECRET);
  socket.write(Buffer.concat(parts.flatMap((part, at) => (at ? [placeholder, part] : [part]))));
  if (stream === "0") continue;
  const until = Date.now() + limit;
  while (!answered(Number(stream)) && !socket.closed && Date.now() < until) {
    await Promise.race([once(socket, "data"), once(socket, "close"), new Promise((done) => setTimeout(done, 100))]);
  }
  console.log(`${stream} ${{ 0: "nothing", 1: "answered", 3: "reset" }[answered(Number(stream))]}`);
}
if (alpn === "h2") socket.destroy();
else {
  socket.end();
  await once(socket, "close");
}

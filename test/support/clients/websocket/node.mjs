// ws: node.mjs CA URL. A handshake with $TOKEN in Authorization, or in the URL if that ends with `=`; then messages that have to come back as they were.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import WebSocket from "ws";

const [ca, url] = process.argv.slice(2);
const query = url.endsWith("=") ? process.env.TOKEN : "";
const headers = query !== "" ? {} : { Authorization: `Bearer ${process.env.TOKEN}` };
const socket = new WebSocket(url + query, { ca: readFileSync(ca), headers });
await once(socket, "open");
for (const length of [0, 1, 125, 126, 65_535, 65_536, 300_000]) {
  const sent = process.env.TOKEN + "x".repeat(length);
  socket.send(sent);
  const [data] = await once(socket, "message");
  assert.equal(data.toString(), sent);
}
socket.close();
await once(socket, "close");

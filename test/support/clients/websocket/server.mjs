// A WebSocket server: server.mjs KEY CERTIFICATE. Says which port it has, and of each handshake what it has received, as JSON,
// one object a line. Sends every message back.
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import { WebSocketServer } from "ws";

const [key, cert] = process.argv.slice(2).map((file) => readFileSync(file));
const server = createServer({ key, cert });
new WebSocketServer({ server }).on("connection", (socket, { url, headers }) => {
  console.log(JSON.stringify({ url, headers }));
  socket.on("message", (data, binary) => socket.send(data, { binary }));
});
server.listen(0, "::", () => console.log(JSON.stringify({ port: server.address().port })));
process.stdin.on("end", () => process.exit()).resume();

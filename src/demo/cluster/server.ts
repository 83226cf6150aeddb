/*
 * The demo's server in a cluster: what the provider of an API is. It alone knows the key, and its log says what it was
 * shown. It never gives back what it received, only what that was.
 */
import { readFileSync } from "node:fs";
import { createServer } from "node:https";
import type { TLSSocket } from "node:tls";

const folder = "/certificates";
const port = Number(process.env["PORT"] ?? 8443);
const key = process.env["API_KEY"] ?? "";

const server = createServer({ cert: readFileSync(`${folder}/tls.crt`), key: readFileSync(`${folder}/tls.key`) });
server.on("request", (request, response) => {
  const { authorization = "" } = request.headers;
  const isKey = key !== "" && authorization === `Bearer ${key}`;
  const received = isKey ? "the key" : authorization.includes("kloak:") ? "a placeholder" : "something else";
  const { servername } = request.socket as TLSSocket;
  console.log(`${request.method} https://${String(servername)}${request.url}  Authorization: ${authorization}`);
  request.resume();
  response.writeHead(isKey ? 200 : 401, { "content-type": "application/json" }).end(JSON.stringify({ received }));
});
server.on("tlsClientError", (error) => console.log(`a handshake failed: ${error.message}`));
server.listen(port, () => console.log(`listens on ${port}; the right key is ${key}`));
process.once("SIGTERM", () => process.exit(0));

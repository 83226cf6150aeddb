// @grpc/grpc-js: one client, and so one connection, for each URL. See README.md for the arguments.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Client, credentials, Metadata } from "@grpc/grpc-js";

const [ca, requests, big, names, ...urls] = process.argv.slice(2);
const header = process.env.HEADER ?? "authorization";
const message = Buffer.alloc(Number(big), "0123456789abcdef");
const asIs = (bytes) => bytes;

for (const url of urls) {
  const client = new Client(url.slice("https://".length), credentials.createSsl(readFileSync(ca)));
  const call = async (method, sent, metadata = new Metadata()) => {
    const answer = await new Promise((resolve, reject) => {
      const done = (error, bytes) => (error === null ? resolve(bytes) : reject(error));
      client.makeUnaryRequest(
        `/test.Echo/${method}`,
        asIs,
        asIs,
        sent,
        metadata,
        { deadline: Date.now() + 60_000 },
        done,
      );
    });
    assert.ok(sent.equals(answer), "another message came back");
  };
  if (message.length > 0) await call("big", message);
  for (const name of names.split(" ")) {
    const metadata = new Metadata();
    metadata.set(header, `Bearer ${process.env[name]}`);
    for (let i = 0; i < Number(requests); i++) await call(name, Buffer.from("hello"), metadata);
  }
  if (message.length > 0) await call("big", message);
  client.close();
}

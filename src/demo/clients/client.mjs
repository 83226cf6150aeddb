// An ordinary client: client.mjs CA HOST PORT sends 20 requests and one to /hold over one connection.
import { readFileSync } from "node:fs";
import { Agent, get } from "node:https";

const [ca, host, port] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true, maxSockets: 1, ca: readFileSync(ca) });
const headers = { authorization: `Bearer ${process.env.API_KEY}` };

const ask = (path) =>
  new Promise((resolve, reject) => {
    const answered = (response) =>
      response.resume().on("end", () => (response.statusCode === 200 ? resolve() : reject(path)));
    get({ agent, host, port, path, headers }, answered).on("error", reject);
  });

for (let page = 1; page <= 20; page += 1) await ask(`/v1/models?page=${page}`);
await ask("/hold");
agent.destroy();

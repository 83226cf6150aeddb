// node:https with an agent of one socket: one connection for each URL. Runs in Node 16 and later, so plain JavaScript.
// See README.md for the arguments.
import { readFileSync } from "node:fs";
import { Agent, request } from "node:https";

const [ca, requests, big, names, ...urls] = process.argv.slice(2);
const body = Buffer.alloc(Number(big), "0123456789abcdef");

function ask(agent, url, method, headers, data) {
  return new Promise((resolve, reject) => {
    const sent = request(url, { agent, method, headers, ca: readFileSync(ca) }, (response) => {
      response.resume();
      response.on("end", () =>
        response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`)),
      );
    });
    sent.on("error", reject);
    sent.end(data);
  });
}

for (const url of urls) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  if (body.length > 0) await ask(agent, `${url}/big`, "POST", {}, body);
  for (const name of names.split(" ")) {
    for (let i = 0; i < Number(requests); i += 1) {
      await ask(agent, `${url}/${name}`, "GET", { authorization: `Bearer ${process.env[name]}` });
    }
  }
  if (body.length > 0) await ask(agent, `${url}/big`, "POST", {}, body);
  agent.destroy();
}

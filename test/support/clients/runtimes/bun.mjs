// Bun's own fetch, which keeps one connection for each URL. See README.md for the arguments.
import { readFileSync } from "node:fs";

const [ca, requests, big, names, ...urls] = process.argv.slice(2);
const body = Buffer.alloc(Number(big), "0123456789abcdef");
const tls = { ca: readFileSync(ca) };

async function ask(url, init) {
  const response = await fetch(url, { tls, ...init });
  await response.arrayBuffer();
  if (response.status !== 200) throw new Error(`status ${response.status}`);
}

for (const url of urls) {
  if (body.length > 0) await ask(`${url}/big`, { method: "POST", body });
  for (const name of names.split(" ")) {
    for (let i = 0; i < Number(requests); i += 1) {
      await ask(`${url}/${name}`, { headers: { authorization: `Bearer ${process.env[name]}` } });
    }
  }
  if (body.length > 0) await ask(`${url}/big`, { method: "POST", body });
}

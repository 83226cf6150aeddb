// Deno's fetch, with a client and so a connection for each URL. See README.md for the arguments.
const [ca, requests, big, names, ...urls] = Deno.args;
const body = new TextEncoder().encode("0123456789abcdef".repeat(Math.ceil(Number(big) / 16)).slice(0, Number(big)));
const caCerts = [Deno.readTextFileSync(ca)];

async function ask(client, url, init) {
  const response = await fetch(url, { client, ...init });
  await response.arrayBuffer();
  if (response.status !== 200) throw new Error(`status ${response.status}`);
}

for (const url of urls) {
  const client = Deno.createHttpClient({ caCerts, http2: false });
  if (body.length > 0) await ask(client, `${url}/big`, { method: "POST", body });
  for (const name of names.split(" ")) {
    for (let i = 0; i < Number(requests); i += 1) {
      await ask(client, `${url}/${name}`, { headers: { authorization: `Bearer ${Deno.env.get(name)}` } });
    }
  }
  if (body.length > 0) await ask(client, `${url}/big`, { method: "POST", body });
  client.close();
}

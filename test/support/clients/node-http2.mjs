// node:http2: one session for each URL, and all requests of a name at once. See README.md for the arguments. HEADER names
// another header than Authorization.
import { readFileSync } from "node:fs";
import { connect } from "node:http2";

const [ca, requests, big, names, ...urls] = process.argv.slice(2);
const body = Buffer.alloc(Number(big), "0123456789abcdef");
const header = process.env.HEADER ?? "authorization";

function ask(session, fields, data) {
  return new Promise((resolve, reject) => {
    const stream = session.request(fields);
    let status;
    stream.on("response", (answer) => {
      status = answer[":status"];
    });
    stream.resume();
    stream.on("error", reject);
    stream.on("end", () => (status === 200 ? resolve() : reject(new Error(`status ${status}`))));
    stream.end(data);
  });
}

for (const url of urls) {
  const session = connect(url, { ca: readFileSync(ca) });
  const upload = () => ask(session, { ":method": "POST", ":path": "/big" }, body);
  if (body.length > 0) await upload();
  // An upload beside them, so that streams are interleaved.
  const uploading = body.length > 0 ? upload() : undefined;
  for (const name of names.split(" ")) {
    const fields = { ":path": `/${name}`, [header]: `Bearer ${process.env[name]}` };
    const one = () => ask(session, fields);
    // At once only what fits into one TLS record: more is cut anywhere, also within a secret.
    if (fields[header].length * Number(requests) < 8192)
      await Promise.all(Array.from({ length: Number(requests) }, one));
    else for (let i = 0; i < Number(requests); i += 1) await one();
  }
  await uploading;
  session.close();
}

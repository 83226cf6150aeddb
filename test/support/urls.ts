/* Clients that send a placeholder twice in a URL, in KEY's place: each with what its language makes of the colon. */

export interface UrlClient {
  readonly name: string;
  readonly listener: "http/1.1" | "http/2";
  readonly encoding: "raw" | "percent" | "huffman";
  command(url: string, slot: "query" | "path"): readonly string[];
}

const twice = { query: "/a?b=1&key=", path: "/a/" };

const python = `
import os, ssl, sys, urllib.parse, http.client
url, start, safe = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], sys.argv[3]
trust = ssl.create_default_context(cafile=os.environ["CURL_CA_BUNDLE"])
server = http.client.HTTPSConnection(url.hostname, url.port, context=trust)
for _ in range(2):
    server.request("GET", start + urllib.parse.quote(os.environ["KEY"], safe=safe))
    server.getresponse().read()
`;
const node = `
const [url, start] = process.argv.slice(1);
for (let i = 0; i < 2; i += 1) await (await fetch(url + start + encodeURIComponent(process.env.KEY))).text();
`;

export const clientsWithUrls: readonly UrlClient[] = [
  {
    name: "python's urllib.parse, %3A",
    listener: "http/1.1",
    encoding: "percent",
    command: (url, slot) => ["python3", "-c", python, url, twice[slot], ""],
  },
  {
    name: "python's urllib.parse with a safe colon",
    listener: "http/1.1",
    encoding: "raw",
    command: (url, slot) => ["python3", "-c", python, url, twice[slot], ":"],
  },
  {
    name: "node's encodeURIComponent",
    listener: "http/1.1",
    encoding: "percent",
    command: (url, slot) => [process.execPath, "--input-type=module", "-e", node, url, twice[slot]],
  },
  {
    name: "curl with %3a",
    listener: "http/1.1",
    encoding: "percent",
    command: (url, slot) => curl("--http1.1", url, slot, "sed s/:/%3a/"),
  },
  {
    name: "curl as it is",
    listener: "http/1.1",
    encoding: "raw",
    command: (url, slot) => curl("--http1.1", url, slot, "cat"),
  },
  {
    name: "curl over HTTP/2",
    listener: "http/2",
    encoding: "huffman",
    command: (url, slot) => curl("--http2", url, slot, "cat"),
  },
];

function curl(version: string, url: string, slot: "query" | "path", filter: string): readonly string[] {
  const target = `${url}${twice[slot]}$(printf %s "$KEY" | ${filter})`;
  return ["sh", "-c", `curl -sS ${version} "${target}" "${target}" >/dev/null`];
}

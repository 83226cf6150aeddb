import { Buffer } from "node:buffer";
import { domainToASCII } from "node:url";
import { addressBytes, addressText, isMapped, mappedPrefix, networkOf } from "./address.ts";
import { entriesOf } from "./list.ts";
import { noHosts, PolicyError, quoted } from "./policy-error.ts";
import { parsePort } from "./ports.ts";

/** A name that a secret may go to: `api.example.com`, or with `wildcard` any one label before `name`. */
export interface NameHost {
  readonly kind: "exact" | "wildcard";
  /** Lower case, punycode, no trailing dot; of a wildcard what follows `*.`. */
  readonly name: string;
  readonly port: number | undefined;
}

/** An address or network that a secret may go to. */
export interface NetworkHost {
  readonly kind: "network";
  /** 16 bytes, IPv4 as ::ffff:a.b.c.d; bits after the prefix are zero. */
  readonly address: Buffer;
  /** Length of the prefix, of 128. */
  readonly bits: number;
  readonly port: number | undefined;
}

export type Host = NameHost | NetworkHost;

/** As in `getkloak.io/hosts`: comma-separated, or a list. */
export type HostsInput = string | readonly string[];

const longestName = 253;
const longestLabel = 63;
const label = /^[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?$/;

/**
 * Parses `getkloak.io/hosts`.
 * @throws PolicyError that quotes the entry and says how to write it.
 */
export function parseHosts(input: HostsInput): readonly Host[] {
  const hosts = entriesOf("hosts", input).map(parseHost);
  if (hosts.length === 0) throw noHosts();
  return hosts;
}

/** Parses one entry: a name, `*.name`, an address or a network, each with an optional `:port`. */
export function parseHost(entry: string): Host {
  refuseWhatIsNoHost(entry);
  const network = parseNetwork(entry);
  if (network !== undefined) return network;
  if (entry.includes("/")) throw withoutPath(entry);
  const [name = "", port, ...more] = entry.split(":");
  if (more.length > 0) {
    throw invalid(entry, "is not an IPv6 address", 'write it as "2001:db8::1" or "[2001:db8::1]:443"');
  }
  return parseName(entry, name, port === undefined ? undefined : parsePort(port, entry));
}

/** How a host is written in its shortest form. */
export function hostText(host: Host): string {
  const port = host.port === undefined ? "" : `:${host.port}`;
  if (host.kind !== "network") return `${host.kind === "wildcard" ? "*." : ""}${host.name}${port}`;
  const text = networkText(host);
  return port !== "" && text.includes(":") ? `[${text}]${port}` : text + port;
}

function networkText({ address, bits }: NetworkHost): string {
  const length = isMapped(address) && bits >= 96 ? bits - 96 : bits;
  return bits === 128 ? addressText(address) : `${addressText(address)}/${length}`;
}

function refuseWhatIsNoHost(entry: string): void {
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.exec(entry);
  if (scheme !== null) {
    const rest = entry.slice(scheme[0].length).split(/[/?#]/)[0] ?? "";
    throw invalid(entry, "has a scheme", `write only the host: ${quoted(rest.split("@").at(-1) ?? "")}`);
  }
  if (/\s/.test(entry)) throw invalid(entry, "has white space", "separate hosts by commas");
  if (entry === "*" || /^\*:[0-9]+$/.test(entry)) {
    throw invalid(entry, "would allow every host", 'name the hosts, or use "*.example.com" for one level of names');
  }
  if (entry.includes("@")) {
    throw invalid(entry, "has a user name", `write only the host: ${quoted(entry.split("@").at(-1) ?? "")}`);
  }
  if (/[?#]/.test(entry)) throw withoutPath(entry);
}

function withoutPath(entry: string): PolicyError {
  const host = entry.split(/[/?#]/)[0] ?? "";
  return invalid(entry, "has a path", `a host cannot be narrowed to a path: write ${quoted(host)}`);
}

/** `a.b.c.d`, `a:b::c`, `[a:b::c]`, each with `/bits` (inside or after the brackets) and with `:port`. */
const networkShape =
  /^(?:\[(?<inner>[0-9a-f:.%a-z]+)(?:\/(?<innerBits>[^\]]*))?\]|(?<plain>[0-9a-f.]*|[0-9a-f:.%]+))(?:\/(?<bits>[^:]*))?(?::(?<port>[^:]*))?$/i;

function parseNetwork(entry: string): NetworkHost | undefined {
  const bare = addressBytes(entry);
  if (bare !== undefined) return { kind: "network", address: bare, bits: 128, port: undefined };
  const parts = networkShape.exec(entry)?.groups;
  const text = parts?.["inner"] ?? parts?.["plain"];
  const address = text === undefined ? undefined : addressBytes(text);
  if (address === undefined) {
    if (entry.includes("[")) throw invalid(entry, "is not an IPv6 address", 'write it as "[2001:db8::1]:443"');
    return undefined;
  }
  const length = parts?.["innerBits"] ?? parts?.["bits"];
  const port = parts?.["port"];
  const bits = length === undefined ? 128 : prefixBits(entry, text?.includes(":") === true, length);
  refuseUnevenNetwork(entry, address, bits);
  return { kind: "network", address, bits, port: port === undefined ? undefined : parsePort(port, entry) };
}

function prefixBits(entry: string, isIPv6: boolean, length: string): number {
  const most = isIPv6 ? 128 : 32;
  const bits = /^[0-9]{1,3}$/.test(length) ? Number(length) : Number.NaN;
  if (!(bits <= most)) throw invalid(entry, "is not a network", `write the length of its prefix, /1 to /${most}`);
  return bits + (128 - most);
}

/** A network with bits after its prefix is a slip; one that holds all of IPv4 or IPv6 is a `*` in disguise. */
function refuseUnevenNetwork(entry: string, address: Buffer, bits: number): void {
  const network = networkOf(address, bits);
  const holdsIPv4 = bits <= 96 && networkOf(Buffer.concat([mappedPrefix], 16), bits).equals(network);
  if (bits === 0 || holdsIPv4) {
    throw invalid(entry, "would allow every address", "name the networks that the secret may go to");
  }
  if (!network.equals(address)) {
    const meant = networkText({ kind: "network", address: network, bits, port: undefined });
    throw invalid(entry, "has bits set after its prefix", `write ${quoted(meant)}, or leave the prefix out`);
  }
}

function parseName(entry: string, text: string, port: number | undefined): NameHost {
  const isWildcard = text.startsWith("*.");
  const name = asciiName(entry, isWildcard ? text.slice(2) : text);
  if (name.includes("*")) {
    const remedy = 'the star stands for exactly one whole label at the front, as in "*.example.com"';
    throw invalid(entry, "has a star that is not its first label", remedy);
  }
  checkLabels(entry, name);
  if (isWildcard && !name.includes(".")) {
    throw invalid(entry, "would allow a whole top-level domain", `name the domain, as in "*.example.${name}"`);
  }
  return { kind: isWildcard ? "wildcard" : "exact", name, port };
}

function asciiName(entry: string, text: string): string {
  const name = text.replace(/\.$/, "");
  if (!/[\u0080-\uffff]/.test(name)) return name.toLowerCase();
  const ascii = domainToASCII(name);
  if (ascii === "") throw invalid(entry, "is not a valid internationalised name", "check its spelling");
  return ascii;
}

function checkLabels(entry: string, name: string): void {
  const labels = name.split(".");
  if (labels.includes("")) throw invalid(entry, "has an empty label", "remove the dot too many");
  const long = labels.find((each) => each.length > longestLabel);
  if (long !== undefined) throw invalid(entry, `has a label of more than ${longestLabel} characters`, "shorten it");
  if (name.length > longestName) throw invalid(entry, `has more than ${longestName} characters`, "shorten it");
  const odd = labels.find((each) => !label.test(each));
  if (odd !== undefined) {
    const remedy = "a label has letters, digits and hyphens, and starts and ends with a letter or digit";
    throw invalid(entry, `has a label ${quoted(odd)} that no host name can have`, remedy);
  }
  if (/^[0-9]+$|^0x[0-9a-f]*$/.test(labels.at(-1) ?? "")) {
    const remedy = "write four numbers from 0 to 255, as in 192.0.2.1, or a name";
    throw invalid(entry, "is neither an IP address nor a name", remedy);
  }
}

function invalid(entry: string, problem: string, remedy: string): PolicyError {
  return new PolicyError("host-invalid", `host ${quoted(entry)} ${problem}`, remedy);
}

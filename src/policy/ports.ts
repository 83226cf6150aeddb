import { entriesOf } from "./list.ts";
import { PolicyError, quoted } from "./policy-error.ts";

/** Room in `struct host_rule`. */
export const mostPorts = 8;

/** Ports as written: `443`, `443/tcp`, a list of them, numbers. */
export type PortsInput = number | string | readonly (number | string)[];

/**
 * Parses `getkloak.io/ports`. No port at all means any port.
 * @returns distinct, ascending
 */
export function parsePorts(input: PortsInput): readonly number[] {
  const parts = Array.isArray(input) ? input.map(String) : [String(input)];
  const ports = new Set(entriesOf("ports", parts).map(parsePortEntry));
  if (ports.size > mostPorts) {
    const problem = `${ports.size} ports are listed, ${mostPorts} is the most`;
    throw new PolicyError("ports-too-many", problem, "leave the ports out to allow any, or list fewer");
  }
  return [...ports].sort((a, b) => a - b);
}

/** Parses the digits of a port; `input` is what the message quotes. */
export function parsePort(digits: string, input: string): number {
  const port = /^[0-9]{1,5}$/.test(digits) ? Number(digits) : 0;
  if (port < 1 || port > 65535) {
    throw new PolicyError("port-invalid", `port of ${quoted(input)} is not a number from 1 to 65535`, "correct it");
  }
  return port;
}

function parsePortEntry(entry: string): number {
  const [digits = "", protocol, ...more] = entry.split("/");
  if (more.length > 0 || (protocol !== undefined && protocol.toLowerCase() !== "tcp")) {
    const remedy = `only TCP carries TLS here: write ${quoted(digits)} or ${quoted(`${digits}/tcp`)}`;
    throw new PolicyError("port-protocol", `port ${quoted(entry)} has protocol ${quoted(protocol ?? "")}`, remedy);
  }
  return parsePort(digits, entry);
}

import { KloakError } from "../errors.ts";
import type { PortPair } from "../run/loopback.ts";

/** A TCP port. @throws KloakError */
export function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65535) return port;
  throw new KloakError("port-invalid", `${JSON.stringify(text)} is no port: give a number from 1 to 65535.`);
}

/** `PORT`, `HOSTPORT:COMMANDPORT` or `auto`. @throws KloakError */
export function parsePortPair(text: string): PortPair | "auto" {
  if (text === "auto") return "auto";
  const [host = "", inside = host, ...more] = text.split(":");
  if (more.length > 0) {
    throw new KloakError(
      "port-invalid",
      `${JSON.stringify(text)} has too many colons: give PORT, HOSTPORT:COMMANDPORT or auto.`,
    );
  }
  return { host: parsePort(host), inside: parsePort(inside) };
}

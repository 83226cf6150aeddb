/*
 * Names resolve for the command as for the host: by the same resolv.conf. Where that names a resolver on the host's
 * loopback (systemd-resolved, dnsmasq), the same address inside answers, by asking it.
 */
import { createSocket, type Socket as Datagram } from "node:dgram";
import { readFileSync } from "node:fs";
import { isIPv6 } from "node:net";
import { netnsSocket } from "./native.ts";
import { listen, type Listener, relayTo } from "./relay.ts";

const dnsPort = 53;
const answerDeadlineMs = 10_000;
const pendingMax = 1024;

/** Loopback addresses among the name servers of a resolv.conf. */
export function loopbackResolvers(text: string): string[] {
  const servers = text.split("\n").flatMap((line) => /^\s*nameserver\s+(\S+)/.exec(line)?.[1] ?? []);
  // resolv.conf(5): without any, the name server on the local machine is asked.
  const named = servers.length === 0 ? ["127.0.0.1"] : servers;
  return [...new Set(named.filter((server) => server.startsWith("127.") || server === "::1"))];
}

export function hostResolvers(): string[] {
  try {
    return loopbackResolvers(readFileSync("/etc/resolv.conf", "utf8"));
  } catch {
    return loopbackResolvers("");
  }
}

/** Answers at `address` in the namespace, over UDP and TCP, with what the same address of the host says. */
export async function relayDns(netns: string, address: string): Promise<Listener> {
  const queries = bound(netnsSocket(netns, "udp", address, dnsPort), isIPv6(address));
  const stream = await listen({ fd: netnsSocket(netns, "listen", address, dnsPort) }, (socket) => {
    relayTo(socket, [{ host: address, port: dnsPort }]);
  });
  const pending = new Set<Datagram>();
  queries.on("message", (query, from) => {
    if (pending.size >= pendingMax) return;
    const upstream = createSocket(isIPv6(address) ? "udp6" : "udp4"); // a port of its own per query (RFC 5452 9.2)
    const timer = setTimeout(() => done(), answerDeadlineMs);
    const done = () => {
      clearTimeout(timer);
      if (pending.delete(upstream)) upstream.close();
    };
    pending.add(upstream);
    upstream.on("error", done);
    upstream.on("message", (answer) => {
      queries.send(answer, from.port, from.address, () => undefined);
      done();
    });
    upstream.connect(dnsPort, address, (error?: Error) => {
      if (error) done();
      else upstream.send(query, () => undefined);
    });
  });
  return {
    port: dnsPort,
    async close() {
      queries.close();
      for (const upstream of pending) upstream.close();
      pending.clear();
      await stream.close();
    },
  };
}

function bound(fd: number, ipv6: boolean): Datagram {
  const socket = createSocket(ipv6 ? "udp6" : "udp4");
  socket.on("error", () => undefined); // an ICMP error for an answer that nobody waited for
  socket.bind({ fd });
  return socket;
}

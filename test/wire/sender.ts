/** Runs inside a workload: connects, writes what standard input says, and ends the connection. */
import { connect } from "node:net";
import { text } from "node:stream/consumers";

interface Order {
  readonly host: string;
  readonly port: number;
  readonly noDelay: boolean;
  /** Base64; one write each. */
  readonly writes: readonly string[];
}

const order = JSON.parse(await text(process.stdin)) as Order;
const socket = connect({ host: order.host, port: order.port, noDelay: order.noDelay });
socket.on("error", (error) => {
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 1;
});
for (const write of order.writes) {
  const bytes = Buffer.from(write, "base64");
  if (!socket.write(bytes)) await new Promise((resolve) => socket.once("drain", resolve));
}
socket.end();
socket.resume();

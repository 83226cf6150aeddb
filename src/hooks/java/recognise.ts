import { locate, segmentFlag } from "../elf/image.ts";
import type { ElfImage } from "../elf/image.ts";
import { lookup } from "../elf/symbols.ts";
import { pointOf } from "../function.ts";
import type { StackPlan } from "../plan.ts";

/** Of libkloak-java.so (java/records.c), to which the agent hands each record. */
const symbol = "Java_sun_security_ssl_KloakRecords_seal";
const argumentCount = 4;

/**
 * The library of Kloak's agent for JVMs. The JVM's own files have nothing to hook: its TLS code is compiled at run time.
 *
 * @throws ElfError
 */
export function recogniseJava(image: ElfImage): StackPlan | undefined {
  const found = lookup(image, [symbol], { dynamicOnly: true }).defined.get(symbol) ?? [];
  if (found.length === 0) return undefined;
  const hooks = found.map((each) => {
    const point = pointOf(image, each, argumentCount);
    const fileOffset = (locate(image, each.address, segmentFlag.execute)?.offset ?? 0) + point.offset;
    return { program: "java_seal", symbol, address: each.address, fileOffset, point, required: true };
  });
  return { stack: "java", version: undefined, machine: image.machine, hooks, offsets: {}, includesProtocol: false };
}

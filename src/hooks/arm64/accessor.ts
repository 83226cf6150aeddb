import type { Field } from "../x86/accessor.ts";

/** As the x86-64 twin: the field that `return p->field` reads, for a `p` that is not NULL (Arm ARM C6.2). */
export function fieldRead(code: Buffer): Field | undefined {
  let field: Field | undefined;
  for (let at = 0, count = 0; count < 8 && at >= 0 && at + 4 <= code.length; count++, at += 4) {
    const instruction = code.readUInt32LE(at);
    if (instruction === 0xd65f03c0) return field; // ret
    // bti c, nop, paciasp: hints of no effect on registers that matter here
    if (instruction === 0xd503245f || instruction === 0xd503201f) continue;
    if ((instruction & 0xff00001f) >>> 0 === 0xb4000000) continue; // cbz x0: not taken
    if ((instruction & 0xff00001f) >>> 0 === 0xb5000000) {
      at += ((((instruction >>> 5) & 0x7ffff) << 13) >> 13) * 4 - 4; // cbnz x0: taken
      continue;
    }
    // ldr w0, [x0, #imm] and ldr x0, [x0, #imm]
    const wide = (instruction & 0xffc003ff) >>> 0 === 0xf9400000;
    if ((!wide && (instruction & 0xffc003ff) >>> 0 !== 0xb9400000) || field !== undefined) return undefined;
    field = { offset: ((instruction >>> 10) & 0xfff) * (wide ? 8 : 4), bytes: wide ? 8 : 4 };
  }
  return undefined;
}

/** What `return constant` returns: `mov w0, #low; movk w0, #high, lsl #16; ret`, in this order, or with x0. */
export function constantReturned(code: Buffer): number | undefined {
  if (code.length < 16) return undefined;
  const at = code.readUInt32LE(0) === 0xd503245f ? 4 : 0;
  const low = code.readUInt32LE(at);
  const high = code.readUInt32LE(at + 4);
  if ((low & 0x7fe0001f) !== 0x52800000 || (high & 0x7fe0001f) !== 0x72a00000) return undefined;
  return ((((high >>> 5) & 0xffff) << 16) | ((low >>> 5) & 0xffff)) >>> 0;
}

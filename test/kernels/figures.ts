/* What the verifier of the running kernel says about our programs, as shares of what it allows. */
import { globSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../../src/dataplane/native.ts";
import { BpfObject } from "../../src/dataplane/object.ts";
import { deepestStack, mayHavePrivateStack } from "./stack.ts";

export interface Figure {
  /** Under bpf/. */
  readonly object: string;
  readonly program: string;
  /** That the verifier walked through, each as often as it did. */
  readonly instructions: number;
  /** Bytes, of the deepest chain of calls. */
  readonly stack: number;
  /** Of a uprobe: the kernel may give it a stack that another thread overwrites (bpf/cipher/stack.h). */
  readonly losesStack: boolean;
}

/** BPF_PROG_TYPE_KPROBE, which uprobes are */
const KPROBE = 2;

/** include/linux/bpf.h: BPF_COMPLEXITY_LIMIT_INSNS (5.2, commit c04c0d2b968a); include/linux/filter.h: MAX_BPF_STACK */
export const limits = { instructions: 1_000_000, stack: 512 } as const;

/** Other kernels, and other compilers, need more than the ones at hand. */
export const allowedShare = 0.8;

export function share(figure: Figure): number {
  return Math.max(figure.instructions / limits.instructions, figure.stack / limits.stack);
}

/** Objects of the data plane, and those of tests, under build/. */
export const objectFiles = globSync("{bpf,test}/**/*.bpf.o", { cwd: join(projectRoot, "build") }).toSorted();

/** Loads an object: one row for each program. Throws what the verifier said if it refuses one. */
export function figuresOf(object: string): Figure[] {
  const loaded = new BpfObject(join(projectRoot, "build", object), { statistics: true });
  try {
    return loaded.programs.map(({ name }) => {
      const { log, code, type } = loaded.program(name);
      const instructions = Number(/processed (\d+) insns/.exec(log)?.[1]);
      const depths = /stack depth ([\d+]+)/.exec(log)?.[1]?.split("+").map(Number);
      if (!instructions || depths === undefined) throw new Error(`${object}, ${name}: no statistics:\n${log}`);
      const losesStack = type === KPROBE && mayHavePrivateStack(code, depths);
      return { object, program: name, instructions, stack: deepestStack(code, depths), losesStack };
    });
  } finally {
    loaded.close();
  }
}

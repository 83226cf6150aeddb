/* docs/verifier.md */
import { allowedShare, type Figure, limits, share } from "./figures.ts";

export interface KernelFigures {
  /** As `uname -r` says. */
  readonly release: string;
  readonly figures: readonly Figure[];
}

const thousands = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
const percent = (value: number): string => `${Math.ceil(value * 100)} %`;

/** A row for each program and kernel, the programs that need most first. */
export function table(kernels: readonly KernelFigures[]): string {
  const rows = kernels
    .flatMap(({ release, figures }) => figures.map((figure) => ({ release, ...figure, share: share(figure) })))
    .toSorted((a, b) => b.share - a.share || a.program.localeCompare(b.program) || a.release.localeCompare(b.release));
  return [
    "| program | object | kernel | instructions verified | stack, bytes | nearest limit |",
    "|---|---|---|---|---|---|",
    ...rows.map(
      (row) =>
        `| \`${row.program}\` | ${row.object.replace(/^bpf\/|\.o$/g, "")} | ${row.release} | ${thousands(row.instructions)} | ${row.stack} | ${percent(row.share)} |`,
    ),
  ].join("\n");
}

export function page(kernels: readonly KernelFigures[]): string {
  return `# What the verifier makes of the programs

Written by \`npm run test:kernels -- --write\`. The kernel gives up on a program after ${thousands(limits.instructions)} instructions walked
through, each as often as it is on a path that is not known yet, and refuses a chain of calls that takes more than ${limits.stack}
bytes of stack. Kernels differ in the first by how well they see that a path is known; compilers in both. So a program
that comes within ${percent(1 - allowedShare)} of a limit fails \`test/kernel/verify.test.ts\`, and \`npm run test:kernels\` on the kernels below.

Stack: the deepest chain of calls, each function's share rounded up to 32 bytes as kernels before 6.8 do, without the 24
bytes that a kernel adds for \`bpf_loop\` after it has checked.

${table(kernels)}
`;
}

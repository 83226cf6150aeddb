/* A BPF file system of the test's own, so that no two tests meet, nor anybody's on this host. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Bpffs {
  /** Where it is mounted. */
  readonly path: string;
  /** A folder in it for the state of an agent. */
  readonly state: string;
  close(): void;
}

const open = new Set<Bpffs>();
let watching = false;

export function mountBpffs(): Bpffs {
  if (!watching) process.once("exit", () => open.forEach((each) => each.close()));
  watching = true;
  const path = mkdtempSync(join(tmpdir(), "kloak-bpffs-"));
  execFileSync("mount", ["-t", "bpf", "bpf", path]);
  const bpffs: Bpffs = {
    path,
    state: join(path, "kloak"),
    close() {
      if (!open.delete(bpffs)) return;
      execFileSync("umount", ["--lazy", path]);
      rmSync(path, { recursive: true, force: true });
    },
  };
  open.add(bpffs);
  return bpffs;
}

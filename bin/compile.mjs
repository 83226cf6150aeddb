// Fills the compile cache of start.mjs with all modules of the command, where nobody can write it later: in an image.
// To be run by the node, with the flags and at the place that it is for.
import { readdirSync } from "node:fs";
import { enableCompileCache } from "node:module";
import { join } from "node:path";

const root = join(import.meta.dirname, "..");
enableCompileCache(join(root, "build/compile-cache"));
for (const folder of ["cli", "agent/kubernetes"])
  for (const name of readdirSync(join(root, "src", folder)))
    if (name.endsWith(".ts") && name !== "main.ts") await import(join(root, "src", folder, name));
await import("../src/kube/kubeconfig.ts");
process.argv[2] = "--version";
await import("../src/cli/main.ts");

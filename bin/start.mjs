// Type stripping costs a tenth of a second and 30 MB for as long as the process lives; its result can be kept on disk.
// In an image it is filled by bin/compile.mjs.
// A function and not NODE_COMPILE_CACHE, which the commands that kloak starts would inherit.
import { enableCompileCache } from "node:module";
import { join } from "node:path";

enableCompileCache(join(import.meta.dirname, "../build/compile-cache"));
await import("../src/cli/main.ts");

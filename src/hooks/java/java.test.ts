import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, test } from "node:test";
import { buildFile } from "../../run/native.ts";
import { discover } from "../discover.ts";
import { Workshop } from "../fixture.ts";
import { hasJavaAgent } from "./agent.ts";

const workshop = new Workshop();
after(() => workshop.close());

test("the agent's library is heard where a record is handed over, by an instruction that costs least", () => {
  const { stacks, tls } = discover(buildFile("java/libkloak-java.so"));
  assert.equal(tls, "known");
  const [hook, ...more] = stacks.flatMap(({ hooks }) => hooks);
  assert.deepEqual([hook?.program, more], ["java_seal", []]);
  if (process.arch === "x64") assert.deepEqual([hook?.point.offset, hook?.point.cost], [0, "emulated"]);
});

test("a library of another agent is none", () => {
  const code = "void Java_sun_security_ssl_OtherRecords_seal(void) {}";
  assert.equal(discover(workshop.link("other.so", code, ["-shared"])).tls, "none");
});

const starts: readonly (readonly [what: string, args: readonly string[], env: Record<string, string>, has: boolean])[] =
  [
    ["by an argument", ["-javaagent:/opt/kloak-java.jar"], {}, true],
    ["by a variable", [], { JAVA_TOOL_OPTIONS: '-Xmx1g -javaagent:"/a b/kloak-java.jar"' }, true],
    ["by the launcher's variable", [], { JDK_JAVA_OPTIONS: "-javaagent:kloak-java.jar" }, true],
    ["another agent", ["-javaagent:/opt/other.jar"], { JAVA_TOOL_OPTIONS: "-Xmx1g" }, false],
    ["a variable that no JVM reads", [], { OPTIONS: "-javaagent:kloak-java.jar" }, false],
  ];

for (const [what, args, env, has] of starts) {
  test(`whether a JVM loads the agent is seen: ${what}`, async () => {
    const child = spawn("sh", ["-c", "echo ready; cat", "sh", ...args], { env: { ...process.env, ...env } });
    try {
      await once(child.stdout, "data");
      assert.equal(hasJavaAgent(child.pid ?? 0), has);
    } finally {
      child.kill();
    }
  });
}

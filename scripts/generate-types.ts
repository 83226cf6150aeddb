/**
 * Writes src/dataplane/types.gen.ts from the types and maps of bpf/, by way of the BTF that clang makes of them.
 *   npm run generate             writes it
 *   … --print                    to standard output instead (the drift test compares)
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Btf, type BtfType } from "../src/dataplane/btf.ts";

const root = join(import.meta.dirname, "..");
/** Values beyond this are opaque to user space: parser states, keys, rings. Only the offsets of their fields are given. */
const OPAQUE_BYTES = 4096;
/** Map types that the bpf(2) system call can look into by key. */
const KEYED = new Set([1, 2, 5, 6, 9, 10, 11]);

const headers = (folder: string) =>
  readdirSync(join(root, "bpf", folder))
    .filter((file) => file.endsWith(".h"))
    .toSorted();

const pascal = (name: string) => camel(`_${name}`);
/** `aes_128_gcm` → `aes128Gcm`; between two digits the underscore stays: `tls_1_2` → `tls1_2`. */
function camel(name: string): string {
  return name
    .replaceAll(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
    .replaceAll(/(?<=[a-zA-Z])_(?=\d)/g, "");
}

function compile(): { btf: Btf; structs: string[]; enums: string[] } {
  const folder = mkdtempSync(join(tmpdir(), "kloak-types-"));
  try {
    const typeHeaders = headers("types");
    const sources = typeHeaders.map((file) => readFileSync(join(root, "bpf/types", file), "utf8")).join("\n");
    const names = (keyword: string) =>
      [...sources.matchAll(new RegExp(`^${keyword} (\\w+) \\{`, "gm"))].map((match) => match[1] ?? "");
    const constants = [...sources.matchAll(/\b(k_\w+)\s*=/g)].map((match) => match[1]);
    const structs = names("struct");
    const enums = names("enum");
    const source = [
      ...headers("maps").map((file) => `#include "maps/${file}"`),
      ...typeHeaders.map((file) => `#include "types/${file}"`),
      ...structs.map((name) => `struct ${name} struct_${name};`),
      ...enums.map((name) => `enum ${name} enum_${name};`),
      `enum constants { ${constants.map((name) => `constant_${name} = ${name},`).join(" ")} } enum_constants;`,
    ].join("\n");
    writeFileSync(join(folder, "types.c"), source);
    const multiarch = execFileSync("gcc", ["-print-multiarch"], { encoding: "utf8" }).trim();
    const flags = ["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-D__TARGET_ARCH_x86", "-I", join(root, "bpf")];
    const system = ["-isystem", `/usr/include/${multiarch}`, "-Wno-unused-function"];
    execFileSync(process.env.CLANG ?? "clang-19", [...flags, ...system, "-c", "types.c", "-o", "types.o"], {
      cwd: folder,
      stdio: ["ignore", "inherit", "inherit"],
    });
    return { btf: new Btf(readFileSync(join(folder, "types.o")), "types.o"), structs, enums };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const { btf, structs, enums } = compile();
const out: string[] = [];
const wanted = new Set<string>();
const opaque = new Set<string>();

/** What a type is in TypeScript, and the codec of it. Named structs are noted as wanted. */
function describe(id: number): { type: string; codec: string } {
  const type = btf.resolve(id);
  if (type.kind === "array") {
    const element = btf.resolve(type.type);
    if (element.name === "char") return { type: "string", codec: `text(${type.count})` };
    if (element.kind === "int" && element.bytes === 1) return { type: "Buffer", codec: `bytes(${type.count})` };
    const item = describe(type.type);
    return { type: `readonly ${item.type}[]`, codec: `list(${item.codec}, ${type.count})` };
  }
  if (type.kind === "struct" && type.name) {
    if (type.bytes > OPAQUE_BYTES) {
      opaque.add(type.name);
      return { type: "Buffer", codec: `bytes(${type.bytes})` };
    }
    wanted.add(type.name);
    return { type: pascal(type.name), codec: `${camel(type.name)}Codec` };
  }
  if (type.kind === "int" && type.bytes === 8) return { type: "bigint", codec: "u64" };
  if (type.kind === "int" && type.name === "int") return { type: "number", codec: "i32" };
  if (type.kind === "int" || type.kind === "enum") return { type: "number", codec: `u${type.bytes * 8}` };
  throw new Error(`no codec for ${type.kind} ${type.name}`);
}

function structNamed(name: string): BtfType {
  const type = btf.find("struct", name);
  if (!type) throw new Error(`struct ${name} is not in BTF`);
  return type;
}

function fieldsOf(struct: BtfType) {
  return struct.members
    .filter((member) => !member.name.startsWith("_pad"))
    .map((member) => ({ name: camel(member.name), offset: member.offset, ...describe(member.type) }));
}

const written = new Set<string>();
function writeStruct(name: string): void {
  if (written.has(name)) return;
  written.add(name);
  const struct = structNamed(name);
  const lines: string[] = [];
  const fields = fieldsOf(struct);
  for (const member of struct.members) {
    let inner = btf.resolve(member.type);
    while (inner.kind === "array") inner = btf.resolve(inner.type);
    if (inner.kind === "struct" && inner.bytes <= OPAQUE_BYTES) writeStruct(inner.name);
  }
  lines.push(`export interface ${pascal(name)} {`);
  lines.push(...fields.map((field) => `  readonly ${field.name}: ${field.type};`), "}");
  lines.push(`export const ${camel(name)}Codec = struct<${pascal(name)}>(${struct.bytes}, {`);
  lines.push(...fields.map((field) => `  ${field.name}: [${field.offset}, ${field.codec}],`), "});", "");
  out.push(...lines);
}

function writeEnum(name: string): void {
  const values = btf.find("enum", name)?.values ?? [];
  // `reason_no_sni` of `enum reason`, `cipher_none` of `enum cipher_algorithm`: what all members start with goes.
  const first = values[0]?.[0] ?? "";
  let prefix = first.slice(0, first.indexOf("_") + 1);
  if (!values.every(([member]) => member.startsWith(prefix) && /[a-z]/.test(member[prefix.length] ?? ""))) prefix = "";
  out.push(`export const ${camel(name)} = {`);
  out.push(...values.map(([member, value]) => `  ${camel(member.slice(prefix.length))}: ${value},`), "} as const;");
  out.push(`export type ${pascal(name)} = (typeof ${camel(name)})[keyof typeof ${camel(name)}];`);
  out.push(`export const ${camel(name)}Names: Readonly<Record<number, string>> = {`);
  out.push(...values.map(([member, value]) => `  ${value}: "${member.slice(prefix.length).replaceAll("_", "-")}",`));
  out.push("};", "");
}

/** The maps of bpf/maps that user space can look into: name, entries, codecs. */
function mapsOf() {
  const section = btf.find("section", ".maps");
  return (section?.members ?? [])
    .map((member) => {
      const variable = btf.at(member.type);
      const definition = btf.resolve(variable.type);
      const field = (name: string) => definition.members.find((one) => one.name === name);
      const number = (name: string) => {
        const one = field(name);
        return one ? btf.resolve(btf.resolve(one.type).type).count : 0;
      };
      const target = (name: string) => {
        const one = field(name);
        return one ? btf.resolve(one.type).type : 0;
      };
      return {
        name: variable.name,
        type: number("type"),
        entries: number("max_entries"),
        key: target("key"),
        value: target("value"),
      };
    })
    .filter((map) => KEYED.has(map.type))
    .toSorted((one, other) => (one.name < other.name ? -1 : 1));
}

const maps = mapsOf().map((map) => ({ ...map, keyCodec: describe(map.key), valueCodec: describe(map.value) }));

out.push("// Generated by `npm run generate` from bpf/types and bpf/maps; not to be edited.", "IMPORT", "");

out.push("export const constants = {");
for (const [member, value] of btf.find("enum", "constants")?.values ?? [])
  out.push(`  ${camel(member.slice("constant_k_".length))}: ${value},`);
out.push("} as const;", "");

for (const name of enums) writeEnum(name);
for (const name of structs) if (structNamed(name).bytes <= OPAQUE_BYTES) writeStruct(name);
for (const name of wanted) writeStruct(name);

out.push("/** Where the fields lie of values that are opaque Buffers here. */", "export const offsets = {");
for (const name of [...opaque].toSorted()) {
  const fields = structNamed(name).members.filter((member) => !member.name.startsWith("_pad"));
  out.push(`  ${camel(name)}: {`, ...fields.map((one) => `    ${camel(one.name)}: ${one.offset},`), "  },");
}
out.push("} as const;", "");

out.push("export const mapTypes = {");
for (const map of maps) {
  out.push(`  ${map.name}: {`, `    type: ${map.type},`, `    entries: ${map.entries},`);
  out.push(`    key: ${map.keyCodec.codec},`, `    value: ${map.valueCodec.codec},`, "  },");
}
out.push("} as const;", "");

out.push(
  "/** By the name in C: what an object that is loaded must agree with. */",
  "export const layouts: Readonly<Record<string, string>> = {",
);
for (const name of [...written, ...opaque].toSorted())
  out.push(`  ${name}: ${JSON.stringify(btf.layout(structNamed(name)))},`);
out.push("};", "");

const used = ["bytes", "i32", "list", "struct", "text", "u16", "u32", "u64", "u8"].filter((name) =>
  out.some((line) => new RegExp(`[,:(=] ${name}[(<,\\]]|\\(${name},`).test(line)),
);
out[out.indexOf("IMPORT")] = `import { ${used.join(", ")} } from "./codec.ts";`;

const target = join(root, "src/dataplane/types.gen.ts");
const formatted = execFileSync(
  process.execPath,
  [join(root, "node_modules/@biomejs/biome/bin/biome"), "format", `--stdin-file-path=${target}`],
  { input: out.join("\n"), encoding: "utf8", cwd: root },
);
if (process.argv.includes("--print")) process.stdout.write(formatted);
else writeFileSync(target, formatted);

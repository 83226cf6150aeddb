/*
 * Other people's firewalls: a chain that drops what it does not know (Docker's, ufw's, firewalld's) drops the command's
 * packets too, whatever our own table accepts. There we put two rules at the top, and take them out again.
 */
import * as v from "valibot";
import { program } from "./program.ts";
import { hostInterface, type RunRecord, save, tableName } from "./state.ts";

const listingSchema = v.object({ nftables: v.array(v.record(v.string(), v.unknown())) });

const chainSchema = v.object({
  family: v.picklist(["ip", "ip6", "inet"]),
  table: v.string(),
  name: v.string(),
  hook: v.literal("forward"),
  policy: v.optional(v.string()),
});

const ruleSchema = v.object({ handle: v.number(), comment: v.string() });

type Chain = v.InferOutput<typeof chainSchema>;

/** Chains that packets on their way through this host may not survive, in the JSON of `nft list chains`. */
export function closedChains(text: string): Chain[] {
  return objects(text, "chain")
    .flatMap((chain) => (v.is(chainSchema, chain) ? [chain] : []))
    .filter(({ table, policy }) => !table.startsWith("kloak-") && (policy === "drop" || table === "firewalld"));
}

/** Lets the run's packets through; what was changed is in the record before it is changed. */
export async function openFirewalls(record: RunRecord): Promise<void> {
  for (const { family, table, name } of closedChains(await program("nft", ["-j", "list", "chains"]))) {
    record.openings.push([family, table, name]);
    save(record);
    const wire = hostInterface(record.id);
    const rules = [`iifname "${wire}"`, `oifname "${wire}" ct state established,related`].map(
      (match) => `insert rule ${family} ${table} ${name} ${match} accept comment "${tableName(record.id)}"`,
    );
    await program("nft", ["-f", "-"], `${rules.join("\n")}\n`);
  }
}

export async function closeFirewalls(record: RunRecord): Promise<void> {
  for (const [family = "", table = "", name = ""] of record.openings) {
    for (const handle of await ourRules(record.id, [family, table, name])) {
      await program("nft", ["delete", "rule", family, table, name, "handle", String(handle)]);
    }
  }
}

async function ourRules(id: string, chain: readonly string[]): Promise<number[]> {
  let text: string;
  try {
    text = await program("nft", ["-j", "-a", "list", "chain", ...chain]);
  } catch {
    return []; // the firewall has been taken down meanwhile
  }
  return objects(text, "rule").flatMap((rule) =>
    v.is(ruleSchema, rule) && rule.comment === tableName(id) ? [rule.handle] : [],
  );
}

function objects(text: string, kind: string): unknown[] {
  const listing = v.parse(listingSchema, JSON.parse(text));
  return listing.nftables.flatMap((entry) => entry[kind] ?? []);
}

/* Audit records as an agent sends them: claims of a node, which may speak of its own pods only. */
import * as v from "valibot";
import type { AuditRecord } from "../audit/index.ts";
import { HttpError } from "../tls/server.ts";

const text = v.nullable(v.pipe(v.string(), v.maxLength(1024)));

const podSchema = v.object({
  kind: v.literal("pod"),
  namespace: v.pipe(v.string(), v.maxLength(63)),
  name: v.pipe(v.string(), v.maxLength(253)),
  uid: v.pipe(v.string(), v.maxLength(64)),
  container: text,
  node: v.pipe(v.string(), v.maxLength(253)),
});

const recordSchema = v.object({
  time: v.pipe(v.string(), v.isoTimestamp()),
  outcome: v.picklist(["substituted", "refused", "unprotected", "lost"]),
  reason: text,
  secret: text,
  workload: v.nullable(podSchema),
  destination: v.object({
    host: text,
    address: text,
    port: v.nullable(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(65535))),
    attestation: text,
  }),
  slot: text,
  encoding: text,
  protocol: text,
  tls: v.object({ version: text, cipher: text, stack: text }),
  count: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))),
  detail: v.optional(v.pipe(v.string(), v.maxLength(4096))),
});

const batchSchema = v.pipe(v.array(recordSchema), v.maxLength(1000));

/**
 * @param hasPod whether the pod of this uid is, or was a moment ago, on the node that sends
 * @throws HttpError 400 for what is no batch of records, 403 for records of other nodes' pods
 */
export function readRecords(data: unknown, node: string, hasPod: (uid: string) => boolean): readonly AuditRecord[] {
  const result = v.safeParse(batchSchema, data);
  if (!result.success) {
    const [issue] = result.issues;
    throw new HttpError(400, `no batch of audit records: ${v.getDotPath(issue) ?? ""} ${issue.message}`);
  }
  for (const { workload } of result.output) {
    if (workload === null) continue;
    if (workload.node !== node) throw new HttpError(403, `node ${node} may not speak for node ${workload.node}`);
    if (!hasPod(workload.uid)) throw new HttpError(403, `pod ${workload.namespace}/${workload.name} is not on ${node}`);
  }
  return result.output as readonly AuditRecord[];
}

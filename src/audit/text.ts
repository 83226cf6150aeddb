import type { AuditRecord, Destination, Workload } from "./record.ts";

/** One record as a line for a reader. */
export function recordText(record: AuditRecord): string {
  const { time, outcome, secret } = record;
  if (outcome === "lost") return `${time} lost         ${record.count ?? 0} records: the trail has a hole here`;
  const parts = [
    time,
    outcome.padEnd(11),
    ...(record.reason === null ? [] : [record.reason]),
    ...(outcome === "unprotected"
      ? [record.detail ?? ""]
      : [secret ?? "(unknown secret)", "→", destinationText(record.destination)]),
    ...(record.slot === null ? [] : [`in ${record.slot}${record.encoding === "base64" ? " (base64)" : ""}`]),
    ...(record.workload === null ? [] : [`by ${workloadText(record.workload)}`]),
  ];
  return parts.join(" ");
}

function destinationText({ host, address, port, attestation }: Destination): string {
  const name = host ?? address;
  if (name === null) return "(unknown destination)";
  const target = `${host === null && name.includes(":") ? `[${name}]` : name}${port === null ? "" : `:${port}`}`;
  const proof = [host === null ? null : address, attestation].filter((each) => each !== null);
  return proof.length === 0 ? target : `${target} (${proof.join(", ")})`;
}

function workloadText(workload: Workload): string {
  if (workload.kind === "run") return `${workload.command ?? "?"}[${workload.pid ?? "?"}]`;
  const container = workload.container === null ? "" : `/${workload.container}`;
  return `${workload.namespace}/${workload.name}${container} on ${workload.node}`;
}

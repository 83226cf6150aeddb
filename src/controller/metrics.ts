/* What Prometheus scrapes of a controller. Names of objects are no labels, but where a metric is there to name them. */
import { collectDefaultMetrics, Counter, Gauge, Registry } from "prom-client";
import type { AuditRecord } from "../audit/index.ts";

export class ControllerMetrics {
  readonly registry = new Registry();
  readonly records = new Counter({
    name: "kloak_audit_records_total",
    help: "Audit records received from agents",
    labelNames: ["outcome", "reason"],
    registers: [this.registry],
  });
  readonly admissions = new Counter({
    name: "kloak_admissions_total",
    help: "Admission requests answered",
    labelNames: ["kind", "allowed"],
    registers: [this.registry],
  });
  readonly reconcileErrors = new Counter({
    name: "kloak_reconcile_errors_total",
    help: "Shadows that could not be brought in line, each time",
    registers: [this.registry],
  });
  readonly leader = new Gauge({
    name: "kloak_leader",
    help: "1 while this replica writes shadows",
    registers: [this.registry],
  });
  readonly feeds = new Gauge({
    name: "kloak_node_feeds",
    help: "Nodes whose agent is connected to this replica",
    registers: [this.registry],
  });
  readonly outdated = new Gauge({
    name: "kloak_pod_placeholder_outdated",
    help: "1 for each pod that runs with a placeholder that its shadow has no more",
    labelNames: ["namespace", "pod", "secret"],
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
  }

  count({ outcome, reason }: AuditRecord): void {
    this.records.inc({ outcome, reason: reason ?? "" });
  }
}

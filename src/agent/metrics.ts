/*
 * An agent's metrics in the text format of Prometheus (exposition format 0.0.4), by hand: the usual library takes a
 * quarter of an agent's memory.
 */

export const metricsType = "text/plain; version=0.0.4";

/** @param counters by name, as `recordsSealed` */
export function metricsText(
  counters: Readonly<Record<string, bigint>>,
  gauges: Readonly<Record<string, number>>,
): string {
  const lines = (kind: string, suffix: string, values: Readonly<Record<string, bigint | number>>): string[] =>
    Object.entries(values).flatMap(([name, value]) => {
      const metric = `kloak_agent_${snakeCase(name)}${suffix}`;
      return [`# TYPE ${metric} ${kind}`, `${metric} ${value}`];
    });
  return `${[...lines("counter", "_total", counters), ...lines("gauge", "", gauges)].join("\n")}\n`;
}

function snakeCase(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

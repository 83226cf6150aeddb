/** The value at `part` (0 to 1) of the sorted `values`, nearest rank. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const value = sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))];
  if (value === undefined) throw new RangeError("quantile of nothing");
  return value;
}

export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/**
 * The median of the differences (or ratios) between rounds that ran side by side: what the machine did meanwhile
 * changes both halves of a pair alike.
 */
export function paired(
  a: readonly number[],
  b: readonly number[],
  compare: (bare: number, other: number) => number,
): number {
  const pairs = a.slice(0, Math.min(a.length, b.length)).map((value, index) => compare(value, b[index] ?? Number.NaN));
  return median(pairs);
}

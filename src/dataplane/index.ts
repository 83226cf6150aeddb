export {
  type Counters,
  type Dataplane,
  type DataplaneOptions,
  type Maps,
  type ObjectName,
  objectNames,
  openDataplane,
  type UprobeTarget,
} from "./dataplane.ts";
export { BpfMap } from "./map.ts";
export { isNativeError, loadNative, type NativeError, netnsCookie, projectRoot } from "./native.ts";
export { BpfObject, type Link } from "./object.ts";
export { siphash } from "./siphash.ts";
export * from "./types.gen.ts";

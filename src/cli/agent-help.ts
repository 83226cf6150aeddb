/* What the help of `kloak agent` says. Apart, so that other commands do not load the agent. */

/** As Pins has it, without loading the data plane. */
export const usualState = "/sys/fs/bpf/kloak";
export const usualRun = "/run/kloak/agent";

export const controlHelp = `
It is what a node's DaemonSet runs, and works on any host. Its data plane is kept in a BPF file system and goes on when it
dies; started again, or in a newer version, it takes over where its predecessor is or was.

Requests at RUN/agent.sock, a line of JSON each, as is the answer:
  {"do":"add-workload","id":"web","netns":"/run/netns/web","interface":"veth12","process":4711}
  {"do":"remove-workload","id":"web"}
  {"do":"bind","name":"KEY","value":"...","hosts":"api.example.com","workloads":["web"]}   answers the placeholder
  {"do":"unbind","name":"KEY"}
  {"do":"status"}
  {"do":"hand-over"}
\`interface\` is the host's end of the workload's veth. \`process\` is one in it, with mounts of its own; without, programs are
held on the file systems of the host. \`bind\` takes hosts, ports, in, attest, proof and prefix as kloak.yaml does, \`ca\` as
a list of PEM texts, and a placeholder, if there is one already.`;

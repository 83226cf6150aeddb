/* Tells the API server whom to trust when it calls our webhooks: `caBundle` in their configurations. */
import type { KubeClient } from "../kube/client.ts";
import { hasStatus } from "../kube/error.ts";
import type { KubeObject } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig: { readonly caBundle?: string } }[];
}

/** @param trust PEM. @throws KubeError */
export async function trustWebhooks(client: KubeClient, name: string, trust: string): Promise<void> {
  const caBundle = Buffer.from(trust).toString("base64");
  for (const resource of [resources.mutatingWebhooks, resources.validatingWebhooks]) {
    const configuration = await client.get<WebhookConfiguration>(resource, undefined, name).catch((error: unknown) => {
      if (hasStatus(error, 404)) return undefined; // switched off in the chart
      throw error;
    });
    const operations = (configuration?.webhooks ?? []).flatMap(({ clientConfig }, index) =>
      clientConfig.caBundle === caBundle
        ? []
        : [{ op: "add", path: `/webhooks/${index}/clientConfig/caBundle`, value: caBundle }],
    );
    if (configuration === undefined || operations.length === 0) continue;
    // Only if it is what was read: an upgrade may reorder the webhooks.
    const test = { op: "test", path: "/metadata/resourceVersion", value: configuration.metadata.resourceVersion };
    await client.patch(resource, undefined, name, [test, ...operations]);
  }
}

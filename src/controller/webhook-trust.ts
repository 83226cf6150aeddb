/* Tells the API server whom to trust when it calls us: `caBundle` of our webhooks and of our aggregated API. */
import type { KubeClient } from "../kube/client.ts";
import { hasStatus } from "../kube/error.ts";
import type { KubeObject } from "../kube/objects.ts";
import { resources } from "../kube/resource.ts";

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig: { readonly caBundle?: string } }[];
}

interface ApiService extends KubeObject {
  readonly spec?: { readonly caBundle?: string };
}

/** @param name of the APIService. @param trust PEM. @throws KubeError */
export async function trustApi(client: KubeClient, name: string, trust: string): Promise<void> {
  const caBundle = Buffer.from(trust).toString("base64");
  const service = await client.get<ApiService>(resources.apiServices, undefined, name).catch((error: unknown) => {
    if (hasStatus(error, 404)) return undefined; // switched off in the chart
    throw error;
  });
  if (service === undefined || service.spec?.caBundle === caBundle) return;
  await client.patch(resources.apiServices, undefined, name, [{ op: "add", path: "/spec/caBundle", value: caBundle }]);
}

/** @param name of both configurations. @param trust PEM. @throws KubeError */
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

/*
 * node.mjs SDK URL COUNT: asks a service COUNT times through its official SDK, with the key in KEY. Prints a line for each
 * answer: what of it the SDK has understood.
 */
const [, , sdk, url, count] = process.argv;
const key = process.env.KEY;

const asking = {
  async openai() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });
    return async () => {
      const messages = [{ role: "user", content: "Say ok." }];
      const answer = await client.chat.completions.create({ model: "gpt-test", messages });
      return answer.choices[0].message.content;
    };
  },
  async "openai, streamed"() {
    const { default: OpenAI } = await import("openai");
    const client = new OpenAI({ apiKey: key, baseURL: `${url}/v1`, maxRetries: 0 });
    return async () => {
      const messages = [{ role: "user", content: "Count." }];
      const parts = [];
      for await (const part of await client.chat.completions.create({ model: "gpt-test", messages, stream: true }))
        parts.push(part.choices[0].delta.content);
      return parts.join("");
    };
  },
  async anthropic() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ apiKey: key, baseURL: url, maxRetries: 0 });
    return async () => {
      const messages = [{ role: "user", content: "Say ok." }];
      const answer = await client.messages.create({ model: "claude-test", max_tokens: 16, messages });
      return answer.content[0].text;
    };
  },
  async stripe() {
    const { default: Stripe } = await import("stripe");
    const { hostname, port } = new URL(url);
    const client = new Stripe(key, { host: hostname, port, maxNetworkRetries: 0, telemetry: false });
    return async () => (await client.balance.retrieve()).available[0].currency;
  },
  async github() {
    const { Octokit } = await import("@octokit/rest");
    const client = new Octokit({ auth: key, baseUrl: url });
    return async () => (await client.rest.users.getAuthenticated()).data.login;
  },
};

const ask = await asking[sdk]();
for (let i = 0; i < Number(count); i += 1) console.log(await ask());

"""python.py SDK URL COUNT: asks a service COUNT times through its official SDK, with the key in KEY. Prints a line for each
answer: what of it the SDK has understood."""

import os
import sys

sdk, url, count = sys.argv[1:]
key = os.environ["KEY"]
question = [{"role": "user", "content": "Say ok."}]


def openai():
    from openai import OpenAI

    client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
    return lambda: client.chat.completions.create(model="gpt-test", messages=question).choices[0].message.content


def openai_streamed():
    from openai import OpenAI

    client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)

    def ask():
        parts = client.chat.completions.create(model="gpt-test", messages=question, stream=True)
        return "".join(part.choices[0].delta.content for part in parts)

    return ask


def anthropic():
    from anthropic import Anthropic

    client = Anthropic(api_key=key, base_url=url, max_retries=0)
    return lambda: client.messages.create(model="claude-test", max_tokens=16, messages=question).content[0].text


def stripe():
    import stripe as package

    package.ca_bundle_path = os.environ["SSL_CERT_FILE"]
    client = package.StripeClient(key, base_addresses={"api": url}, max_network_retries=0)
    return lambda: client.v1.balance.retrieve().available[0].currency


def github():
    from github import Auth, Github

    client = Github(base_url=url, auth=Auth.Token(key), retry=None)
    return lambda: client.get_user().login


ask = {"openai": openai, "openai, streamed": openai_streamed, "anthropic": anthropic, "stripe": stripe, "github": github}[sdk]()
for _ in range(int(count)):
    print(ask())

"""What the man-in-the-middle proxy does: the same as Kloak, a placeholder in a header becomes the secret."""

import os

from mitmproxy import http

placeholder = os.environ["BENCH_PLACEHOLDER"]
secret = os.environ["BENCH_SECRET"]
host = os.environ["BENCH_HOST"]


def request(flow: http.HTTPFlow) -> None:
    value = flow.request.headers.get("authorization", "")
    if flow.request.host == host and placeholder in value:
        flow.request.headers["authorization"] = value.replace(placeholder, secret)

"""HTTP clients from PyPI with a TLS library of their own inside. Before the arguments of README.md: which. One client, and
so one connection, for each URL."""

import os
import sys
from pathlib import Path

kind, ca, requests, big, names, *urls = sys.argv[1:]
body = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]


def pyreqwest():
    """reqwest and rustls over AWS-LC."""
    from pyreqwest.client import SyncClientBuilder

    builder = SyncClientBuilder().add_root_certificate_pem(Path(ca).read_bytes()).no_proxy()
    client = builder.http1_only().build()

    def ask(method, url, headers, data):
        request = client.request(method, url).headers(headers)
        response = (request.body_bytes(data) if data else request).build().send()
        response.bytes()
        return response.status

    return ask


def httpr():
    """reqwest and rustls over ring."""
    from httpr import Client

    client = Client(ca_cert_file=ca, timeout=60)

    def ask(method, url, headers, data):
        response = client.request(method, url, headers=headers, content=data or None)
        return response.content is not None and response.status_code

    return ask


def rnet():
    """BoringSSL, without symbols."""
    from rnet.blocking import BlockingClient
    from rnet import Method

    client = BlockingClient(verify=Path(ca), http1_only=True, no_proxy=True)
    methods = {"GET": Method.GET, "POST": Method.POST}

    def ask(method, url, headers, data):
        response = client.request(methods[method], url, headers=headers, **({"body": data} if data else {}))
        response.bytes()
        return response.status

    return ask


def curl_cffi():
    """curl over BoringSSL, with symbols."""
    from curl_cffi import CurlHttpVersion, requests as sessions

    session = sessions.Session(verify=ca, http_version=CurlHttpVersion.V1_1, trust_env=False)

    def ask(method, url, headers, data):
        return session.request(method, url, headers=headers, data=data or None, timeout=60).status_code

    return ask


def awscrt():
    """s2n over AWS-LC, with symbols."""
    from urllib.parse import urlsplit

    from awscrt.http import HttpClientConnection, HttpHeaders, HttpRequest
    from awscrt.io import ClientBootstrap, ClientTlsContext, InputStream, TlsContextOptions
    from io import BytesIO

    options = TlsContextOptions()
    options.override_default_trust_store_from_path(None, ca)
    context = ClientTlsContext(options)
    connections = {}

    def ask(method, url, headers, data):
        parts = urlsplit(url)
        if parts.netloc not in connections:
            tls = context.new_connection_options()
            tls.set_server_name(parts.hostname)
            made = HttpClientConnection.new(
                parts.hostname, parts.port, ClientBootstrap.get_or_create_static_default(), tls_connection_options=tls
            )
            connections[parts.netloc] = made.result(60)
        sent = HttpHeaders(list({"Host": parts.netloc, "Content-Length": str(len(data)), **headers}.items()))
        stream = connections[parts.netloc].request(
            HttpRequest(method, parts.path, sent, InputStream(BytesIO(data)) if data else None)
        )
        stream.activate()
        return stream.completion_future.result(60)

    return ask


make = {each.__name__: each for each in (pyreqwest, httpr, rnet, curl_cffi, awscrt)}[kind]


for url in urls:
    ask = make()

    def check(method, path, headers, data=b""):
        status = ask(method, url + path, headers, data)
        if int(str(status).split()[0]) != 200:
            raise SystemExit(f"{method} {path}: status {status}")

    if body:
        check("POST", "/big", {}, body)
    for name in names.split():
        for _ in range(int(requests)):
            check("GET", f"/{name}", {"Authorization": "Bearer " + os.environ[name]})
    if body:
        check("POST", "/big", {}, body)

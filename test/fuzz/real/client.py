"""client.py CA PLAN KEYLOG: the TLS client of a workload, over connections that PLAN (JSON) lists.

Says what came of each as JSON: how many requests were answered, and the error that ended it, if one did.
"""

import concurrent.futures
import json
import os
import socket
import ssl
import sys

ca, plan_file, keylog = sys.argv[1:]
with open(plan_file, encoding="ascii") as file:
    plan = json.load(file)
context = ssl.create_default_context(cafile=ca)
context.keylog_filename = keylog


def request(connection, request):
    """Header block and body, in writes of the sizes that the plan wants; the header block is one of them."""
    secret = os.environ.get(request["secret"] or "", "")
    body = (b"0123456789abcdef" * (request["body"] // 16 + 1))[: request["body"]]
    if request["where"] == "body":
        body += secret.encode()
    head = [
        f"POST {request['path']} HTTP/1.1",
        f"Host: {connection['name']}",
        f"Content-Length: {len(body)}",
        *([f"Authorization: Bearer {secret}"] if request["where"] == "header" else []),
    ]
    writes = ["\r\n".join([*head, "", ""]).encode()]
    if request["joined"]:
        cut = max(0, 16000 - len(writes[0]))
        writes[0] += body[:cut]
        body = body[cut:]
    at = 0
    while at < len(body):
        size = request["writes"][len(writes) % len(request["writes"])]
        writes.append(body[at : at + size])
        at += size
    return writes


def answers(stream, count):
    for _ in range(count):
        line = stream.readline()
        if not line.startswith(b"HTTP/1.1 200"):
            raise OSError(f"answered with {line!r}")
        while stream.readline() not in (b"\r\n", b""):
            pass
        if stream.read(3) != b"ok\n":
            raise OSError("the answer is cut")


def run(connection):
    done = 0
    try:
        tcp = socket.socket(socket.AF_INET6 if ":" in connection["address"] else socket.AF_INET)
        tcp.settimeout(90)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 100)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, connection["noDelay"])
        if connection["sendBuffer"]:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, connection["sendBuffer"])
        if connection["segment"]:
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, connection["segment"])
        tcp.bind(("", connection["port"]))
        tcp.connect((connection["address"], connection["to"]))
        with context.wrap_socket(tcp, server_hostname=connection["name"]) as tls, tls.makefile("rb") as stream:
            for batch in connection["batches"]:
                for one in batch:
                    for write in request(connection, one):
                        tls.sendall(write)
                answers(stream, len(batch))
                done += len(batch)
        error = None
    except OSError as failure:
        error = f"{type(failure).__name__}: {failure}"
    return {"port": connection["port"], "done": done, "error": error}


with concurrent.futures.ThreadPoolExecutor(plan["parallel"]) as pool:
    results = list(pool.map(run, plan["connections"]))
placeholders = {name: os.environ[name] for name in plan["secrets"]}
print(json.dumps({"results": results, "placeholders": placeholders}))

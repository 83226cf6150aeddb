"""grpcio: one channel, and so one connection, for each URL. See README.md for the arguments."""

import os
import sys

import grpc

ca, requests, big, names, *urls = sys.argv[1:]
header = os.environ.get("HEADER", "authorization")
message = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]
with open(ca, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())

for url in urls:
    with grpc.secure_channel(url.removeprefix("https://"), credentials) as channel:

        def call(method, sent, metadata=()):
            answer = channel.unary_unary(f"/test.Echo/{method}")(sent, metadata=metadata, timeout=60)
            assert answer == sent, "another message came back"

        if message:
            call("big", message)
        for name in names.split():
            for _ in range(int(requests)):
                call(name, b"hello", ((header, "Bearer " + os.environ[name]),))
        if message:
            call("big", message)

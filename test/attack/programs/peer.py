"""A machine that is not what it seems: peer.py HOW [ARGUMENT...]. Says its port; ends with its standard input.

relay ADDRESS PORT              passes bytes on to another server, and writes what the client said to standard output
connect ADDRESS PORT            an HTTP proxy: whatever CONNECT names, it is ADDRESS PORT that answers
tls-connect CERT KEY ADDR PORT  the same behind TLS
redirect CERT KEY URL           an HTTPS server that sends every client to URL, and writes what it was asked
"""

import os
import socket
import ssl
import sys
import threading

how, *arguments = sys.argv[1:]
listener = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
context = None
if how in ("tls-connect", "redirect"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.pop(0), arguments.pop(0))


def pump(source, sink, show):
    try:
        while data := source.recv(65536):
            if show:
                os.write(1, data)
            sink.sendall(data)
    except OSError:
        pass
    for end in (source, sink):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def head(client):
    text = b""
    while b"\r\n\r\n" not in text:
        data = client.recv(65536)
        if not data:
            raise ConnectionError
        text += data
    return text


def serve(client):
    try:
        if context:
            client = context.wrap_socket(client, server_side=True)
        if how == "redirect":
            os.write(1, head(client))
            client.sendall(f"HTTP/1.1 302 Found\r\nLocation: {arguments[0]}\r\nContent-Length: 0\r\n\r\n".encode())
            client.close()
            return
        if how.endswith("connect"):
            head(client)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        server = socket.create_connection((arguments[0], int(arguments[1])))
    except OSError:  # who only looks at the certificate hangs up
        client.close()
        return
    threading.Thread(target=pump, args=(server, client, False), daemon=True).start()
    pump(client, server, how == "relay")


def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


threading.Thread(target=accept, daemon=True).start()
print(listener.getsockname()[1], flush=True)
sys.stdin.read()

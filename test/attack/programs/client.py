"""What the programs here share: a TLS client over memory BIOs, which knows every byte that it hands to the kernel."""

import os
import socket
import ssl
import urllib.parse


class Client:
    """connection: a socket that is connected already; without one a new socket is made, and `prepare` called with it."""

    def __init__(self, ca, url, keylog=None, prepare=None, connection=None):
        context = ssl.create_default_context(cafile=ca)
        if keylog:
            context.keylog_filename = keylog
        parts = urllib.parse.urlsplit(url)
        self.host = parts.hostname
        self.socket = connection or socket.socket()
        if prepare:
            prepare(self.socket)
        if not connection:
            self.socket.connect((parts.hostname, parts.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=self.host)
        self._until(self.tls.do_handshake)

    def _until(self, step):
        while True:
            try:
                result = step()
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("the server has gone")
                self.incoming.write(data)

    def _flush(self):
        data = self.outgoing.read()
        if data:
            self.socket.sendall(data)

    def seal(self, path, secret):
        """The records of a request, as they are to be sent."""
        self.tls.write(f"GET {path} HTTP/1.1\r\nHost: {self.host}\r\nAuthorization: Bearer {secret}\r\n\r\n".encode())
        return self.outgoing.read()

    def answer(self):
        text = b""
        while not text.endswith(b"\r\n\r\nok\n"):
            text += self._until(lambda: self.tls.read(65536))
        if not text.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(text.decode("latin1"))

    def request(self, path="/a", secret=None):
        self.socket.sendall(self.seal(path, secret or os.environ["SECRET"]))
        self.answer()

    def close(self):
        self.socket.close()

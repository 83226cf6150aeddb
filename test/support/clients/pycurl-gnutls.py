"""pycurl, on Debian over libcurl-gnutls: one handle, and so one connection, for each URL. See README.md for the arguments."""

import os
import sys

import pycurl

ca, requests, big, names, *urls = sys.argv[1:]
if "GnuTLS" not in pycurl.version:
    raise SystemExit(f"this is not curl with GnuTLS: {pycurl.version}")
body = (b"0123456789abcdef" * (int(big) // 16 + 1))[: int(big)]


def ask(handle, url, headers, data=None):
    handle.reset()
    handle.setopt(pycurl.URL, url)
    handle.setopt(pycurl.CAINFO, ca)
    handle.setopt(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1)
    handle.setopt(pycurl.HTTPHEADER, ["Expect:", *headers])
    handle.setopt(pycurl.WRITEFUNCTION, len)
    if data is not None:
        handle.setopt(pycurl.POSTFIELDSIZE, len(data))
        handle.setopt(pycurl.POSTFIELDS, data)
    handle.perform()
    if handle.getinfo(pycurl.RESPONSE_CODE) != 200:
        raise SystemExit(f"{url}: status {handle.getinfo(pycurl.RESPONSE_CODE)}")


for url in urls:
    handle = pycurl.Curl()
    if body:
        ask(handle, url + "/big", [], body)
    for name in names.split():
        for _ in range(int(requests)):
            ask(handle, f"{url}/{name}", ["Authorization: Bearer " + os.environ[name]])
    if body:
        ask(handle, url + "/big", [], body)
    handle.close()

"""pry.py: looks for the value whose SHA-256 is SECRET_SHA256 and length SECRET_LENGTH wherever this process may read:
memory, environment and arguments of every process, and what the host keeps of kloak. Prints the places."""

import hashlib
import os
import re

wanted, length = os.environ["SECRET_SHA256"], int(os.environ["SECRET_LENGTH"])
word = re.compile(rb"(?<![A-Za-z0-9])[A-Za-z0-9]{%d}(?![A-Za-z0-9])" % length)
me = os.getpid()


def search(what, data):
    if any(hashlib.sha256(match.group()).hexdigest() == wanted for match in word.finditer(data)):
        print(what, flush=True)


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def search_memory(pid):
    try:
        memory = open(f"/proc/{pid}/mem", "rb", 0)
    except OSError:
        return
    with memory:
        for line in read(f"/proc/{pid}/maps").decode().splitlines():
            span, rights = line.split()[:2]
            if not rights.startswith("rw"):
                continue
            start, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(start)
                search(f"memory of {read(f'/proc/{pid}/comm').decode().strip()}", memory.read(min(end - start, 256 << 20)))
            except (OSError, OverflowError, ValueError):
                continue


kloak = set()
for entry in filter(str.isdigit, os.listdir("/proc")):
    arguments = read(f"/proc/{entry}/cmdline")
    search(f"arguments of {entry}", arguments)
    search(f"{'own environment' if int(entry) == me else f'environment of {entry}'}", read(f"/proc/{entry}/environ"))
    if int(entry) != me and b"kloak" in arguments:
        kloak.add(entry)
for pid in sorted(kloak, key=int):
    search_memory(pid)
for directory in ("/run/kloak", "/var/lib/kloak", "/sys/fs/bpf"):
    for folder, _, names in os.walk(directory):
        for name in names:
            search(os.path.join(folder, name), read(os.path.join(folder, name)))
print("done", "with kloak in sight" if kloak else "")

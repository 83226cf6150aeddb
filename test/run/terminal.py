"""Runs a program on a pseudo-terminal of its own and holds a dialogue with it.

Standard input: {"argv": [...], "steps": [{"expect": regex, "running": command line, "send": text}], "deadline": seconds}
Text is sent once a process of the terminal has that command line, which is how one knows that a shell has got that far:
dash loses a SIGINT that arrives while it forks a command.
Standard output: {"transcript": text, "status": exit status or -signal, "failed": the regex that never came, or null}
"""
import json, os, pty, re, select, signal, sys, time

plan = json.load(sys.stdin)
pid, master = pty.fork()
if pid == 0:
    # A suite that runs in the background of a shell inherits these as ignored; a terminal's program does not.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    os.execvp(plan["argv"][0], plan["argv"])

end = time.monotonic() + plan["deadline"]
transcript = ""
position = 0
failed = None


def more():
    """Reads what there is to read; False at the end of the terminal or of the time."""
    global transcript
    left = end - time.monotonic()
    if left <= 0 or not select.select([master], [], [], left)[0]:
        return False
    try:
        data = os.read(master, 65536)
    except OSError:
        return False
    transcript += data.decode(errors="replace")
    return bool(data)


def running(command):
    """Whether a process of the terminal executes this command line."""
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as file:
                session = int(file.read().rpartition(")")[2].split()[3])
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").rstrip("\0").split("\0")
        except (OSError, ValueError):
            continue
        if session == pid and " ".join(words) == command:
            return True
    return False


for step in plan["steps"]:
    pattern = re.compile(step["expect"], re.M)
    while not (match := pattern.search(transcript, position)):
        if not more():
            failed = step["expect"]
            break
    if failed:
        break
    position = match.end()
    while "running" in step and not running(step["running"]):
        if time.monotonic() > end:
            failed = f"a process {step['running']}"
            break
        select.select([], [], [], 0.005)
    if failed:
        break
    if "send" in step:
        os.write(master, step["send"].encode())

if failed:
    os.kill(pid, signal.SIGHUP)
while time.monotonic() < end and more():
    pass
while True:
    done, status = os.waitpid(pid, os.WNOHANG)
    if done:
        break
    if time.monotonic() > end:
        os.kill(pid, signal.SIGKILL)
        failed = failed or "end of the program"
    select.select([], [], [], 0.02)
print(json.dumps({"transcript": transcript, "status": os.waitstatus_to_exitcode(status), "failed": failed}))

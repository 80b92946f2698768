"""autopsy: what a test's processes were doing when it failed, a line for each thread. A hang that shows on one machine in a hundred runs can't be looked at later, so the test looks at it at once."""
import collections
import itertools
import os
import re
import shutil
import subprocess

FRAMES = 7
PLUMBING = re.compile(r"_|do_futex_wait|poll$|read$|fuse_session_receive_buf")  # of the C library


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def descendants(pid):
    """Ids of the processes below that one."""
    found = []
    for child in " ".join(_read(f"/proc/{pid}/task/{task}/children") for task in _tasks(pid)).split():
        found += [int(child)] + descendants(int(child))
    return found


def _tasks(pid):
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def _kernel_stack(pid, task):
    """Innermost first: the functions in which the thread waits, if we may see them."""
    functions = re.findall(r"\] ([^+\s]+)\+", _read(f"/proc/{pid}/task/{task}/stack"))
    return [name for name in functions if not re.match("futex|__futex|do_futex|__x64_sys|do_syscall_64|entry_SYSCALL_64|__do_sys", name)]


def _user_stacks(pid):
    """By thread: the functions of the program, where gdb is at hand."""
    stacks, task = {}, None
    if not shutil.which("gdb"):
        return stacks
    try:
        done = subprocess.run(["gdb", "-p", str(pid), "-nx", "-batch", "-ex", "thread apply all bt 20"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return stacks
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        head, frame = re.search(r"\(LWP (\d+)\)", line), re.match(r"#\d+ +(?:0x[0-9a-f]+ in )?(\w+)", line)
        if line.startswith("Thread") and head:
            task = head.group(1)
        elif frame and task:
            stacks.setdefault(task, []).append(frame.group(1))
    return stacks


def process(pid):
    """Lines about a process; threads that are at the same place share one."""
    command = _read(f"/proc/{pid}/cmdline").replace("\0", " ")[:100].replace("\n", " ")
    user, count = _user_stacks(pid), collections.Counter()
    for task in sorted(_tasks(pid), key=int):
        own = list(itertools.dropwhile(PLUMBING.match, user.get(task, [])))
        kernel = _kernel_stack(pid, task) or [_read(f"/proc/{pid}/task/{task}/wchan")]
        comm = _read(f"/proc/{pid}/task/{task}/comm").strip()
        count[f"{comm}: {' < '.join(own[:FRAMES])} | {' < '.join(kernel[:FRAMES])}"] += 1
    return [f"process {pid}: {command}"] + [f"  {number} x {line}" for line, number in count.items()]

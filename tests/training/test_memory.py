import os
import platform
import subprocess
import sys

import pytest

from sslkit.training import keep_freed_memory, memory

# It reads the file alone: the package would import what takes ten times as long.
SCRIPT = """
import resource, runpy, sys
import torch

torch.set_num_threads(1)
keep_freed_memory = runpy.run_path(sys.argv[1])["keep_freed_memory"]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(10 * 2**20).fill_(1.0)  # 40 MiB, which glibc by itself maps anew
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
taken = keep_freed_memory()
for _ in range(10):  # small blocks end up behind a large one until there are holes for them
    after = faults()
print(taken, before, after)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an allocator of another C library")
def test_large_tensors_take_memory_that_was_freed_before():
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, memory.__file__],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    taken, before, after = done.stdout.split()
    assert taken == "True"
    assert int(before) >= 4 * 20  # pages of 2 MiB or less
    assert int(after) < int(before) / 10


class Library:
    """A C library that says what it was told."""

    def __init__(self, answers):
        self.answers, self.told = iter(answers), []

    def mallopt(self, option, value):
        self.told.append((option, value))
        return next(self.answers)


@pytest.mark.parametrize(("answers", "taken"), [([1, 1], True), ([0, 1], False), ([1, 0], False)])
def test_it_says_whether_the_allocator_took_both(monkeypatch, answers, taken):
    library = Library(answers)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: library)
    assert keep_freed_memory() is taken
    if taken:
        m_trim_threshold, m_mmap_max = -1, -4  # of glibc's malloc.h
        assert dict(library.told)[m_mmap_max] == 0
        assert dict(library.told)[m_trim_threshold] >= 2**30


@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_elsewhere_it_does_nothing(monkeypatch, system):
    def no_library(name):
        if system != "linux":
            raise OSError("there is none to load")
        return object()  # one without mallopt, as musl

    monkeypatch.setattr(memory.sys, "platform", system)
    monkeypatch.setattr(memory.ctypes, "CDLL", no_library)
    assert keep_freed_memory() is False

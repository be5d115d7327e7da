import threading
import time
import urllib.request

from sslkit.data.network import answers


def test_a_server_that_hangs_costs_the_time_limit(monkeypatch):
    released = threading.Event()

    def hangs(*args, **kwargs):
        released.wait(60)
        raise OSError

    monkeypatch.setattr(urllib.request, "urlopen", hangs)
    started = time.monotonic()
    assert not answers("http://nowhere", 0.2)
    assert time.monotonic() - started < 30
    released.set()

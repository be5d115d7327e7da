"""Whether a server can be reached, asked so that nothing waits for a network that is not there."""

import ssl
import threading
import urllib.error
import urllib.request


def answers(url: str, seconds: float = 3.0) -> bool:
    """Whether a server is there; in a thread, because a name look-up knows no timeout.

    >>> answers("http://127.0.0.1:9", 1.0)
    False
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            urllib.request.urlopen(url, timeout=seconds).close()
        except urllib.error.HTTPError:
            pass  # an answer
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ssl.SSLError):  # wandb has certificates of its own
                return
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()

import http.server
import threading

import pytest

from sslkit.dashboard import wandb_logger


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No credential of whoever runs the tests is seen, and wandb starts afresh."""
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name))
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


@pytest.mark.parametrize("mode", ["auto", "disabled"])
def test_disabled(tmp_path, monkeypatch, mode):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_logger(tmp_path, mode=mode, name="x", config={}) is None
    assert list(tmp_path.iterdir()) == []


def test_unknown_mode(tmp_path):
    with pytest.raises(ValueError, match="mode is 'on', not one of auto, online"):
        wandb_logger(tmp_path, mode="on", name="x", config={})


def test_without_a_key_it_is_offline_and_resumes_the_same_run(home, capfd):
    ids, secret = [], "s3cr3t"
    for step in range(2):
        logger = wandb_logger(home / "run", name="x", config={"lr": 0.1, "api_key": secret})
        logger.log_metrics({"loss": 1.0}, step=step)
        ids.append(logger.experiment.id)
        assert dict(logger.experiment.config) == {"lr": 0.1}
        assert logger.experiment.settings.mode == "offline"
        logger.experiment.finish()
    assert ids[0] == ids[1] == (home / "run" / "wandb" / "run_id.txt").read_text()
    runs = list((home / "run" / "wandb").glob("offline-run-*"))
    assert runs
    assert all(secret.encode() not in p.read_bytes() for r in runs for p in r.rglob("*.wandb"))
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 2
    assert f"wandb: offline (no API key); look: wandb leet {home}/run/wandb" in err


def test_online_without_a_key_is_refused_not_asked(home, monkeypatch):
    with pytest.raises(ValueError, match="run online and has no credentials"):
        wandb_logger(home, mode="online", name="x", config={})
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match="run online and has no credentials"):
        wandb_logger(home, name="x", config={})


@pytest.mark.parametrize("answers", [True, False])
def test_with_a_key_it_is_online_if_the_server_answers(home, monkeypatch, answers, capfd):
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    url = f"http://127.0.0.1:{server.server_port}"
    if answers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    else:
        server.server_close()
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", url)
    wandb_logger(home, name="x", config={})
    err = capfd.readouterr().err
    assert ("wandb: online" if answers else f"offline (no answer from {url})") in err
    assert "a" * 40 not in err
    if answers:
        server.shutdown()
        server.server_close()

"""Downloads from a server that fails in every way, and by ten processes at once."""

import gzip
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import PROJECT

import lab.download
from lab.download import OfflineError, download

CONTENT = gzip.compress(bytes(range(256)) * 400)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


class Failing(http.server.BaseHTTPRequestHandler):
    """The first part of the path says how; counts what it has given whole."""

    given = 0

    def do_GET(self):
        how = self.path.split("/")[1]
        if how == "error":
            return self.send_error(500)
        if how == "moved":
            self.send_response(302)
            self.send_header("Location", "/html/page")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        content = b"<html>log in first</html>" if how == "html" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if how == "corrupt":
            content = content[:50] + b"?" + content[51:]
        if how in ("stalls", "breaks"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            if how == "stalls":
                time.sleep(3)
            return self.connection.close()
        if how == "slow":
            time.sleep(1)
        type(self).given += how in ("right", "slow")
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setattr(lab.download, "SECONDS", (1, 1))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    Failing.given = 0
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


REASONS = {"error": "500", "moved": "does not match", "html": "does not match", "corrupt": "does not match"}
REASONS |= {"stalls": "f.gz stalls", "breaks": "f.gz breaks off", "nowhere": "no network to 127.0.0.1:9"}


@pytest.mark.parametrize("how", REASONS)
def test_a_failing_mirror_gives_way_to_the_next_and_alone_leaves_nothing(address, tmp_path, how):
    failing = f"{address}/{how}/f.gz" if how != "nowhere" else "http://127.0.0.1:9/f.gz"
    with pytest.raises(OfflineError) as refusal:
        download([failing], tmp_path / "f.gz", MD5)
    assert REASONS[how] in str(refusal.value) and not list(tmp_path.iterdir())
    assert download([failing, f"{address}/right/f.gz"], tmp_path / "f.gz", MD5).read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["f.gz"]


def test_offline_is_told_within_a_second(tmp_path):
    started = time.perf_counter()
    with pytest.raises(OfflineError):
        download(["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"], tmp_path / "f.gz", MD5)
    assert time.perf_counter() - started < 1


def test_processes_that_start_at_once_are_all_told_that_there_is_no_network(tmp_path):
    def fails(number):
        with pytest.raises(OfflineError, match="no network"):
            download(["http://127.0.0.1:9/a"], tmp_path / str(number // 8) / "raw" / "f.gz", MD5)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(fails, range(160)))


@pytest.mark.parametrize("runs", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_processes_that_start_at_once_download_once(tmp_path, data_root, runs):
    served = tmp_path / "served"
    served.mkdir(), (tmp_path / "empty").mkdir()
    sums, asked = {}, []
    for path in (data_root / "MNIST" / "raw").iterdir():
        (served / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        sums[path.name] = hashlib.md5((served / f"{path.name}.gz").read_bytes()).hexdigest()

    class Counting(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=served)

        def do_GET(self):
            asked.append(self.path)
            time.sleep(0.2)
            super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirrors, known = [f"http://127.0.0.1:{server.server_port}/"], {name: [None, md5] for name, md5 in sums.items()}
        read = f"idx(Path('empty'), 'MNIST/raw', {mirrors}, {known})"
        script = f"from pathlib import Path; from lab.datasets import idx; print({read}.images.sum())"
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
        environment |= {"NO_PROXY": "*", "PYTHONPATH": str(PROJECT / "src")}
        pipes = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-c", script]
        processes = [subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) for _ in range(runs)]
        told = {process.communicate() for process in processes}
        server.shutdown()
    assert len(told) == 1 and told.pop()[1] == ""
    assert sorted(asked) == sorted(f"/{name}.gz" for name in sums)
    assert len(list((tmp_path / "empty" / "MNIST" / "raw").iterdir())) == 4

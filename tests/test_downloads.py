import gzip
import hashlib
import io
import shutil
import ssl
import struct
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from robustbench_lite.data import Split
from robustbench_lite.downloads import fetched, watched
from robustbench_lite.errors import InputError
from robustbench_lite.sources.data.downloads import Batches, Gzipped, read

CONTENT = bytes(range(256)) * 9000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Site(ThreadingHTTPServer):
    """Serves `pages`: content by path, or an address to go to."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.pages: dict[str, bytes | str] = {}
        self.asked: list[str] = []
        self.cut = 0  # bytes that are promised and not sent
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server_port}/"


class Page(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        page = self.server.pages.get(self.path.lstrip("/").partition("?")[0])
        if page is None:
            self.send_error(404)
        elif isinstance(page, str):
            self.send_response(302)
            self.send_header("Location", page)
            self.end_headers()
        else:
            self.send_response(200)
            if not self.path.endswith("unmeasured"):
                self.send_header("Content-Length", str(len(page) + self.server.cut))
            self.end_headers()
            self.wfile.write(page)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(site: Site) -> Iterator[Site]:
    thread = threading.Thread(target=site.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        found.pages["file.bin"] = CONTENT
        yield found


def test_a_file_is_fetched_once(site, tmp_path):
    folder = tmp_path / "a" / "b"
    path = fetched(f"{site.url}file.bin?x=1", DIGEST, folder)
    assert path == folder / "file.bin"
    assert path.read_bytes() == CONTENT
    assert fetched(f"{site.url}file.bin?x=1", DIGEST, folder) == path
    assert site.asked == ["/file.bin?x=1"]
    assert list(folder.iterdir()) == [path]


def test_a_damaged_file_is_fetched_again(site, tmp_path):
    (tmp_path / "file.bin").write_bytes(CONTENT[:-1])
    assert fetched(f"{site.url}file.bin", DIGEST, tmp_path).read_bytes() == CONTENT


def test_another_content_is_not_kept(site, tmp_path):
    site.pages["file.bin"] = b"evil"
    with pytest.raises(InputError) as caught:
        fetched(f"{site.url}file.bin", DIGEST, tmp_path)
    assert f"has the sha256 {hashlib.sha256(b'evil').hexdigest()}, not {DIGEST}" in str(
        caught.value
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("page", "most", "cut", "part"),
    [
        ("missing.bin", 2**32, 0, "cannot be fetched.+404"),
        ("file.bin", len(CONTENT) - 1, 0, "is larger than 2303999 bytes"),
        ("unmeasured", len(CONTENT) - 1, 0, "is larger than 2303999 bytes"),
        ("file.bin", 2**32, 7, "broke off after 2304000 of 2304007 bytes"),
    ],
)
def test_a_file_that_does_not_arrive(site, tmp_path, page, most, cut, part):
    site.pages["unmeasured"], site.cut = CONTENT, cut
    with pytest.raises(InputError, match=part):
        fetched(site.url + page, DIGEST, tmp_path, most=most)
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(site, tmp_path):
    with serving(Site()) as gone:
        pass
    with pytest.raises(InputError, match=r"cannot be fetched.+check the network"):
        fetched(f"{gone.url}file.bin", DIGEST, tmp_path)


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://example.org/file.bin", "is not https"),
        ("ftp://127.0.0.1/file.bin", "is not https"),
        ("file:///etc/passwd", "is not https"),
        ("/etc/passwd", "is not https"),
        ("http://localhost.example.org/file.bin", "is not https"),
        ("http://127.0.0.1@example.org/file.bin", "is not https"),
        ("https://example.org/", "name of a file"),
        ("https://example.org/a/..", "name of a file"),
        ("https://example.org/a%5Cb", "name of a file"),
        ("https://example.org/%2e%2e", "name of a file"),
    ],
)
def test_an_address_that_is_not_asked(tmp_path, url, part):
    with pytest.raises(InputError, match=part):
        fetched(url, DIGEST, tmp_path)


def test_a_name_cannot_lead_out_of_the_folder(site, tmp_path):
    site.pages["..%2Ffile.bin"] = CONTENT
    assert fetched(f"{site.url}..%2Ffile.bin", DIGEST, tmp_path / "in") == tmp_path / "in/file.bin"


def test_a_redirection_is_followed(site, tmp_path):
    site.pages["old.bin"] = f"{site.url}file.bin"
    assert fetched(f"{site.url}old.bin", DIGEST, tmp_path) == tmp_path / "old.bin"


@pytest.mark.parametrize(
    ("to", "part"),
    [
        ("http://example.org/file.bin", "leads to http://example.org/file.bin, which is not https"),
        ("file:///etc/passwd", "'file:///etc/passwd' is not allowed"),
    ],
)
def test_a_redirection_to_what_is_not_https(site, tmp_path, to, part):
    site.pages["old.bin"] = to
    with pytest.raises(InputError, match=part):
        fetched(f"{site.url}old.bin", DIGEST, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def secure(tmp_path_factory, monkeypatch) -> Iterator[Site]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    key, certificate = (tmp_path_factory.mktemp("tls") / name for name in ("key.pem", "cert.pem"))
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=here")
    place = ("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate)
    subprocess.run(["openssl", *made, *place], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serving(Site(context)) as found:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        yield found


def test_https_never_leads_to_http(secure, site, tmp_path):
    secure.pages |= {"file.bin": CONTENT, "good": f"{secure.url}file.bin"}
    secure.pages["bad"] = f"{site.url}file.bin"
    assert fetched(f"{secure.url}good", DIGEST, tmp_path).read_bytes() == CONTENT
    with pytest.raises(InputError, match="which is not https"):
        fetched(f"{secure.url}bad", DIGEST, tmp_path)
    assert site.asked == []


def test_a_certificate_that_nobody_vouches_for(secure, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(InputError, match="CERTIFICATE_VERIFY_FAILED"):
        fetched(f"{secure.url}file.bin", DIGEST, tmp_path)


def test_a_watcher_sees_every_byte(site, tmp_path):
    seen: list[tuple[int, int]] = []
    with watched(lambda done, whole: seen.append((done, whole))):
        fetched(f"{site.url}file.bin", DIGEST, tmp_path)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    (tmp_path / "file.bin").unlink()
    count = len(seen)
    fetched(f"{site.url}file.bin", DIGEST, tmp_path)
    assert len(seen) == count


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + shape + array.tobytes())


def tar_of(members: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
LABELS = np.array([1, 0, 1, 0, 0, 1], np.uint8)


@pytest.fixture
def gzipped(site, tmp_path) -> Gzipped:
    files = {
        "train-images-idx3-ubyte.gz": idx(PIXELS[:4]),
        "train-labels-idx1-ubyte.gz": idx(LABELS[:4]),
        "t10k-images-idx3-ubyte.gz": idx(PIXELS[4:]),
        "t10k-labels-idx1-ubyte.gz": idx(LABELS[4:]),
    }
    site.pages |= {f"mirror/{name}": content for name, content in files.items()}
    mirrors = (f"{site.url}gone/", f"{site.url}mirror/")
    digests = tuple(map(sha256, files.values()))
    return Gzipped(mirrors, digests, tmp_path / "raw", ("even", "odd"))


@pytest.mark.parametrize(("split", "rows"), [(Split.TRAIN, slice(4)), (Split.TEST, slice(4, 6))])
def test_files_as_mnist_has_them(gzipped, split, rows):
    data = read(gzipped, split, "torchvision:MNIST")
    assert torch.equal(data.x, torch.from_numpy(PIXELS[rows, None]).float() / 255)
    assert data.y.tolist() == LABELS[rows].tolist()
    assert (data.name, data.classes) == ("torchvision:MNIST", ("even", "odd"))


def test_every_mirror_is_told_when_none_has_the_file(site, gzipped):
    site.pages["mirror/t10k-labels-idx1-ubyte.gz"] = idx(LABELS[:2])
    with pytest.raises(InputError) as caught:
        read(gzipped, Split.TEST, "torchvision:MNIST")
    assert "gone/t10k-labels-idx1-ubyte.gz cannot be fetched" in str(caught.value)
    assert "mirror/t10k-labels-idx1-ubyte.gz has the sha256" in str(caught.value)


COLOURS = np.random.default_rng(1).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


@pytest.mark.parametrize("labels", [1, 2], ids=["CIFAR10", "CIFAR100"])
@pytest.mark.parametrize(("split", "rows"), [(Split.TRAIN, slice(4)), (Split.TEST, slice(4, 6))])
def test_files_as_cifar_has_them(site, tmp_path, labels, split, rows):
    coarse = [b"\x07"] * (labels - 1)
    records = [b"".join([*coarse, bytes([LABELS[i]]), COLOURS[i].tobytes()]) for i in range(6)]
    members = {
        "in/1.bin": b"".join(records[:3]),
        "in/2.bin": records[3],
        "in/t.bin": b"".join(records[4:]),
        "in/names.txt": b"even\nodd\n\n",
    }
    packed = tar_of(members)
    site.pages["cifar.tar.gz"] = packed
    offer = Batches(
        url=f"{site.url}cifar.tar.gz",
        digest=sha256(packed),
        folder=tmp_path,
        inside="in",
        train=("1.bin", "2.bin"),
        test="t.bin",
        names="names.txt",
        labels=labels,
    )
    for _ in range(2):
        data = read(offer, split, "torchvision:CIFAR")
        assert torch.equal(data.x, torch.from_numpy(COLOURS[rows]).float() / 255)
        assert data.y.tolist() == LABELS[rows].tolist()
        assert data.classes == ("even", "odd")
    assert site.asked == ["/cifar.tar.gz"]

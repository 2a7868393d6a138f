import gzip
import io
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from robustbench_lite.downloads import extracted
from robustbench_lite.errors import InputError

Write = Callable[[Path], None]


def zipped(**members: bytes) -> Write:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)

    return write


def tarred(mode: str, *members: tuple[str, bytes, int, str]) -> Write:
    def write(path: Path) -> None:
        with tarfile.open(path, mode) as archive:
            for name, content, kind, target in members:
                member = tarfile.TarInfo(name)
                member.size, member.linkname = len(content), target
                member.type = bytes([kind])
                archive.addfile(member, io.BytesIO(content))

    return write


def plain(name: str, content: bytes = b"1") -> tuple[str, bytes, int, str]:
    return name, content, ord("0"), ""


def special(name: str, kind: str, target: str = "") -> tuple[str, bytes, int, str]:
    return name, b"", ord(kind), target


@pytest.mark.parametrize(
    "write",
    [
        zipped(**{"a/b.txt": b"one", "a/c/d.txt": b"two", "empty/": b""}),
        *(
            tarred(
                f"w:{packed}",
                *(special("./", "5"), plain("./a/b.txt", b"one"), plain("a/c/d.txt", b"two")),
                special("empty", "5"),
            )
            for packed in ("", "gz", "bz2", "xz")
        ),
    ],
    ids=["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"],
)
def test_an_archive_is_unpacked_once(tmp_path, write):
    write(tmp_path / "archive")
    folder = extracted(tmp_path / "archive", tmp_path / "out" / "here")
    found = {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in folder.rglob("*")}
    assert found == {
        "a": False,
        "a/b.txt": b"one",
        "a/c": False,
        "a/c/d.txt": b"two",
        "empty": False,
    }
    (tmp_path / "archive").unlink()
    assert extracted(tmp_path / "archive", folder) == folder
    assert list((tmp_path / "out").iterdir()) == [folder]


def link_in_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc")


def declared_larger(path: Path) -> None:
    """Three members of 4 GB each by what the file says of itself."""
    zipped(a=b"0", b=b"0", c=b"0")(path)
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\1\2")
    while at >= 0:
        content[at + 24 : at + 28] = struct.pack("<I", 2**32 - 16)
        at = content.find(b"PK\1\2", at + 1)
    path.write_bytes(content)


def declared_smaller(path: Path) -> None:
    zipped(a=bytes(3 * 2**20))(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 3 * 2**20), struct.pack("<I", 100)))


def endless_name(path: Path) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**26
    path.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**26), 1))


def truncated(path: Path) -> None:
    tarred("w:gz", plain("a", os.urandom(2**20)))(path)
    path.write_bytes(path.read_bytes()[:-2000])


OUT = "leads out of its folder"
LINK = "a link or a device"


@pytest.mark.parametrize(
    ("write", "part"),
    [
        (zipped(**{"../evil": b"1"}), OUT),
        (zipped(**{"a/../../evil": b"1"}), OUT),
        (zipped(**{"/evil": b"1"}), OUT),
        (zipped(**{"C:evil": b"1"}), OUT),
        (zipped(**{"..\\evil": b"1"}), OUT),
        (zipped(**{"good": b"1", "../evil": b"1"}), OUT),
        (link_in_zip, LINK),
        (zipped(a=bytes(3 * 2**20)), "larger than 2097152 bytes"),
        (declared_larger, "larger than 2097152 bytes"),
        (declared_smaller, "cannot be unpacked"),
        (zipped(**{str(i): b"" for i in range(21)}), "more than 20 files"),
        (zipped(a=b"1", **{"a/b": b"1"}), "cannot be unpacked"),
        (tarred("w:gz", plain("../evil")), OUT),
        (tarred("w:gz", plain("/evil")), OUT),
        (tarred("w:gz", special("a/../../evil", "5")), OUT),
        (tarred("w:", plain("good"), special("link", "2", "/etc")), LINK),
        (tarred("w:", special("link", "2", "good"), plain("link/evil")), LINK),
        (tarred("w:gz", special("hard", "1", "../../evil")), LINK),
        (tarred("w:gz", special("null", "3")), LINK),
        (tarred("w:gz", special("sda", "4")), LINK),
        (tarred("w:gz", special("pipe", "6")), LINK),
        (tarred("w:gz", plain("zeros", bytes(3 * 2**20))), "larger than 2097152 bytes"),
        (tarred("w:gz", *(plain(str(i), bytes(2**19)) for i in range(5))), "larger than 2097152"),
        (tarred("w:gz", *(plain(str(i)) for i in range(21))), "more than 20 files"),
        (tarred("w:gz", plain("a"), plain("a")), "cannot be unpacked"),
        (endless_name, "a header is too long"),
        (truncated, "cannot be unpacked"),
        (lambda path: path.write_bytes(b""), "neither tar nor zip"),
        (lambda path: path.write_bytes(b"PK nothing"), "cannot be unpacked"),
        (lambda path: path.write_text("hello" * 200), "neither tar nor zip"),
        (lambda path: None, "cannot be unpacked"),
    ],
)
def test_an_archive_that_is_refused_leaves_nothing(tmp_path, write, part):
    archive = tmp_path / "in" / "archive"
    archive.parent.mkdir()
    write(archive)
    with pytest.raises(InputError, match=part):
        extracted(archive, tmp_path / "out" / "here", most=2**21, files=20)
    assert list((tmp_path / "out").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}
    assert not Path("/evil").exists()

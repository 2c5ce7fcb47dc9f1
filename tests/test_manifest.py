"""Folders are written whole or not at all, and every change of a file is named."""

import errno
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import socket
import zlib
from pathlib import Path

import pytest

from file_faults import KILLED, fail_at
from tutelage import manifest
from tutelage.errors import DamagedDataError

FILES = {"weights": bytes(range(256)) * 3, "sub/one.json": b'{"a": 1}', "empty": b""}


def write(folder, files=FILES, about=None):
    with manifest.staged(folder, about) as staging:
        for name, data in files.items():
            manifest.make_folder((staging / name).parent)
            manifest.write_by(staging / name, lambda path, data=data: path.write_bytes(data))


def content(folder):
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != manifest.MANIFEST}


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model", about={"step": 3})
    return tmp_path / "model"


def test_what_was_written_is_there(folder):
    found = manifest.verify(folder)
    assert content(folder) == FILES
    assert found.files == {name: (len(data), zlib.crc32(data)) for name, data in FILES.items()}
    assert found.about == {"step": 3}
    assert json.loads((folder / "manifest.json").read_text())["format"] == manifest.FORMAT == 1
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    # Somebody adds a card.
    (folder / "README.md").write_text("# A model")
    assert manifest.verify(folder) == found


def flip(place):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[int(place * (len(data) - 1))] ^= 4
        path.write_bytes(data)

    return damage


def cut(length):
    return lambda path: os.truncate(path, length(path.stat().st_size))


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def edited(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


DAMAGE = {
    "a bit at the start": ("weights", flip(0), "was changed"),
    "a bit in the middle": ("weights", flip(0.5), "was changed"),
    "a bit at the end": ("weights", flip(1), "was changed"),
    "nothing left": ("weights", cut(lambda n: 0), "is cut off: it has 0 bytes, .* with 768"),
    "half": ("weights", cut(lambda n: n // 2), "cut off: it has 384 bytes, .* with 768"),
    "one byte less": ("sub/one.json", cut(lambda n: n - 1), "cut off: it has 7 bytes, .* with 8"),
    "one byte more": ("empty", cut(lambda n: 1), "is longer than it was: it has 1 bytes, .* with 0"),
    "missing": ("sub/one.json", Path.unlink, "one.json is missing"),
    "garbage": ("weights", lambda path: path.write_bytes(b"x" * 768), "was changed"),
    "a folder": ("weights", replaced_by(Path.mkdir), "is no plain file"),
    "a pipe": ("weights", replaced_by(os.mkfifo), "is no plain file"),
    "a link to nothing": ("weights", replaced_by(lambda path: path.symlink_to("none")), "is missing"),
    "a link to itself": ("weights", replaced_by(lambda path: path.symlink_to(path)), "cannot be opened"),
    "a device": ("weights", replaced_by(lambda path: path.symlink_to("/dev/zero")), "is no plain file"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json is missing"),
    "half a manifest": ("manifest.json", cut(lambda n: n // 2), "is no manifest"),
    "an empty manifest": ("manifest.json", cut(lambda n: 0), "is no manifest"),
    "a list": ("manifest.json", lambda path: path.write_text("[]"), "is no manifest"),
    "a deep manifest": ("manifest.json", lambda path: path.write_text("[" * 100_000), "is no manifest"),
    "an endless manifest": ("manifest.json", cut(lambda n: 1 << 34), "is larger than"),
    "a name taken out": ("manifest.json", edited('"weights"', '"weight"'), "was changed"),
    "another step": ("manifest.json", edited('"step": 3', '"step": 5'), "was changed"),
    "a newer format": ("manifest.json", edited('"format": 1', '"format": 2'), "format 2, .* reads 1.* update tutelage"),
    "no format": ("manifest.json", edited('"format": 1', '"format": 0'), "was changed"),
    "a manifest that is a pipe": ("manifest.json", replaced_by(os.mkfifo), "is no plain file"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(folder, kind):
    name, damage, told = DAMAGE[kind]
    damage(folder / name)
    with pytest.raises(DamagedDataError, match=told) as caught:
        manifest.verify(folder, "the student")
    assert str(folder / name) in str(caught.value)
    assert "the student" in str(caught.value)


def test_every_bit_of_a_manifest_counts(folder):
    path = folder / manifest.MANIFEST
    whole = path.read_bytes()
    for place, bit in itertools.product(range(len(whole)), range(8)):
        data = bytearray(whole)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        with pytest.raises(DamagedDataError):
            manifest.verify(folder)


@pytest.mark.parametrize(
    "name",
    ["../secret", "/etc/hostname", "a/../../secret", "", ".", "a//b", "C:secret", "a\\b", "a\0b", "manifest.json"],
)
def test_names_stay_inside(folder, name):
    (folder.parent / "secret").write_bytes(b"")
    entries = {"format": 1, "about": {}, "files": {name: {"bytes": 0, "crc32": "00000000"}}}
    (folder / manifest.MANIFEST).write_bytes(manifest._written(entries))
    with pytest.raises(DamagedDataError, match="no file inside the folder"):
        manifest.verify(folder)


def test_links_stay_inside(folder):
    shutil.copy(folder / "weights", folder.parent / "outside")
    (folder / "weights").rename(folder / "renamed")
    (folder / "weights").symlink_to("renamed")
    manifest.verify(folder)
    (folder / "weights").unlink()
    (folder / "weights").symlink_to(folder.parent / "outside")
    with pytest.raises(DamagedDataError, match="a link out of the folder"):
        manifest.verify(folder)


NEW = {**FILES, "weights": b"new weights"}


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EIO], ids=["full", "broken"])
@pytest.mark.parametrize("old", [None, FILES], ids=["new", "replaced"])
def test_every_operation_fails_once(tmp_path, kind, old):
    """Whichever fails, the folder is the old one or the new one, and nothing lies beside it after the next start."""
    for number in range(1, 100):
        parent = tmp_path / str(number)
        parent.mkdir()
        if old is not None:
            write(parent / "model", old)
        with pytest.MonkeyPatch.context() as patch:
            count = fail_at(patch, number, kind)
            failed = None
            try:
                write(parent / "model", NEW)
            except OSError as error:
                failed = error
        is_new = (parent / "model").exists() and content(parent / "model") == NEW
        assert is_new or (content(parent / "model") == old if old else not (parent / "model").exists())
        if failed is None:
            assert is_new
        else:
            assert failed.errno == kind
            assert str(parent) in str(failed.filename)
        manifest.sweep(parent)
        assert [path.name for path in parent.iterdir()] == ["model"] * bool(is_new or old)
        if is_new or old:
            manifest.verify(parent / "model")
        write(parent / "model", NEW)
        assert content(parent / "model") == NEW
        if count[0] < number:
            assert number > 15
            return
    raise AssertionError("it never passed")


def killed_at(parent, number):
    with pytest.MonkeyPatch.context() as patch:
        fail_at(patch, number, KILLED)
        write(parent / "model", NEW)


def test_a_kill_at_every_operation(tmp_path):
    """The next reader finds the old folder or the new one, each whole; the next start clears what was left."""
    fork, seen = multiprocessing.get_context("fork"), set()
    for number in range(1, 100):
        parent = tmp_path / str(number)
        parent.mkdir()
        write(parent / "model")
        process = fork.Process(target=killed_at, args=(parent, number))
        process.start()
        process.join()
        reader, starter = tmp_path / f"{number}-reader", parent
        shutil.copytree(parent, reader)
        manifest.verify(reader / "model")
        manifest.sweep(starter)
        manifest.verify(starter / "model")
        assert content(reader / "model") == content(starter / "model")
        seen.add(content(starter / "model") == NEW)
        assert [path.name for path in parent.iterdir()] == ["model"]
        if process.exitcode == 0:
            assert seen == {False, True}
            return
        assert process.exitcode == -signal.SIGKILL
    raise AssertionError("it never passed")


def test_what_others_are_writing_stays(tmp_path):
    write(tmp_path / "model")
    mine = manifest.begin(tmp_path / "model")
    elsewhere = tmp_path / ".model.another-machine.12-3456.staging"
    elsewhere.mkdir()
    ended = tmp_path / f".model.{manifest._host()}.{os.getpid()}-1.staging"
    ended.mkdir()
    gone = manifest.private(tmp_path / "older", "gone")
    gone.mkdir()
    part = tmp_path / f".run.json.{manifest._host()}.{os.getpid()}-1.part"
    part.write_bytes(b"{")
    own = tmp_path / ".keep.part"
    own.write_bytes(b"")
    manifest.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"model", mine.name, elsewhere.name, own.name}
    os.utime(elsewhere, (0, 0))
    manifest.sweep(tmp_path)
    assert not elsewhere.exists()
    manifest.sweep(tmp_path / "nowhere")


def test_a_host_has_any_name(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "a.b c/ä")
    place = manifest.private(tmp_path / "model", "part")
    assert place.parent == tmp_path
    place.write_bytes(b"")
    manifest.sweep(tmp_path)
    assert place.exists()


def behind(error, cause):
    error.__context__ = cause
    return error


GOLDEN = """{
 "format": 1,
 "about": {
  "step": 40
 },
 "files": {
  "weights": {
   "bytes": 9,
   "crc32": "cbf43926"
  }
 },
 "crc32": "CRC"
}
"""


def test_the_first_format_stays_readable(tmp_path):
    (tmp_path / "weights").write_bytes(b"123456789")
    of_itself = zlib.crc32(b'{"about":{"step":40},"files":{"weights":{"bytes":9,"crc32":"cbf43926"}},"format":1}')
    (tmp_path / "manifest.json").write_text(GOLDEN.replace("CRC", f"{of_itself:08x}"))
    assert manifest.verify(tmp_path) == manifest.Manifest({"weights": (9, 0xCBF43926)}, {"step": 40})


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space"),
        RuntimeError("I/O error: full (os error 28)"),
        behind(RuntimeError("unexpected pos 704 vs 598"), OSError(28, "No space")),
    ],
    ids=str,
)
def test_a_failed_write_of_a_library_names_its_file(tmp_path, error):
    def fail(path):
        raise error

    with pytest.raises(OSError, match="No space left on device") as caught:
        manifest.write_by(tmp_path / "weights", fail)
    assert caught.value.filename == str(tmp_path / "weights")


def test_other_errors_of_a_library_stay_what_they_are(tmp_path):
    def fail(path):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        manifest.write_by(tmp_path / "weights", fail)

"""The folders: writable, on a file system that keeps what the pipeline counts on, with room."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from agetf_pipeline.core.storage_errors import describe, spell_bytes
from agetf_pipeline.upkeep.doctor import Item, Patient, ill

MB = 1_000_000
_SHM = Path("/dev/shm")
_MIN_SHM = 256 * MB
_MIN_TMP = 500 * MB
_MAX_CLOCK_S = 5.0
_NETWORK = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "lustre", "gpfs", "afs")
_BYTES_A_PIXEL = 2.0
"""Of a PNG of a photograph, about."""
_COPIES = 3
"""Raw, enhanced and crops, about."""
_MODELS_BYTES = {True: 200 * MB, False: 20_000 * MB}
_MAX_FILES = 20_000


def folders_check(patient: Patient) -> Iterator[Item]:
    """Whether the workspace is there and may be written."""
    if patient.workspace is None:
        return
    root = patient.workspace.root
    yield Item("root", str(root) if root.is_dir() else f"{root} (made by the first run)")
    for folder in (root, root / "data", root / "stats", root / "models", root / "outputs"):
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if folder != root and place == root:
            continue  # looked at already
        number = _refusal(place)
        if number is not None:
            error = describe(place, number)
            found, remedy = str(error).split("; found: ", 1)[1].split(". ", 1)
            yield ill("error", "workspace/writable", str(place), "a writable folder", found, remedy)


def file_system_check(patient: Patient) -> Iterator[Item]:
    """Whether locks exclude, renames are atomic, names keep their case, and clocks agree."""
    if patient.workspace is None or _refusal(_nearest(patient.workspace.root)) is not None:
        return
    place = _nearest(patient.workspace.root)
    kind = file_system_of(place)
    with tempfile.TemporaryDirectory(prefix=".tmp-doctor-", dir=place) as folder:
        problems = [*_probe(Path(folder))]
    for name, expected, found, remedy in problems:
        yield ill("error", f"workspace/{name}", str(place), expected, found, remedy)
    if kind.startswith(_NETWORK):
        yield ill(
            "note", "workspace/network", "file system", "a local disk", kind,
            "Locks and renames worked here; see that every machine mounts it with locks (NFS 4).",
        )  # fmt: skip
    elif not problems:
        yield Item("file system", f"{kind}: locks, renames, names and clock are well")


def disk_check(patient: Patient) -> Iterator[Item]:
    """Whether there is room, by a rough estimate of what the configured run needs."""
    if patient.workspace is None:
        return
    place = _nearest(patient.workspace.root)
    free, needed = shutil.disk_usage(place).free, needed_bytes(patient)
    text = f"{spell_bytes(free)} free; a run needs about {spell_bytes(needed)} (a rough estimate)"
    if free < needed / 10:
        severity = "error"
    elif free < needed:
        severity = "warning"
    else:
        severity = None
        yield Item("disk", text)
    if severity is not None:
        yield ill(
            severity, "workspace/disk", f"disk of {place}", f"{spell_bytes(needed)} free, roughly",
            f"{spell_bytes(free)}", "Make room, or put workspace.root on a larger disk.",
        )  # fmt: skip
    status = os.statvfs(place)
    if status.f_files and status.f_favail < 10_000:
        yield ill(
            "warning", "workspace/inodes", f"disk of {place}", "room for 10,000 files or more",
            f"{status.f_favail}", "Remove small files, or use another disk.",
        )  # fmt: skip


def temporary_check(patient: Patient, shm: Path = _SHM, tmp: Path | None = None) -> Iterator[Item]:
    """Whether the temporary folder and shared memory have room."""
    folder = Path(tempfile.gettempdir()) if tmp is None else tmp
    free = shutil.disk_usage(folder).free
    if free < _MIN_TMP:
        yield ill(
            "warning", "workspace/tmp", str(folder), f"{spell_bytes(_MIN_TMP)} free or more",
            spell_bytes(free), "Make room there, or set TMPDIR to another folder.",
        )  # fmt: skip
    else:
        yield Item("temporary files", f"{spell_bytes(free)} free in {folder}")
    if not shm.is_dir():
        return
    size = shutil.disk_usage(shm).total
    several = patient.config is not None and patient.config.train.num_processes > 1
    if size < _MIN_SHM:
        yield ill(
            "warning" if several else "note", "workspace/shm", str(shm),
            f"{spell_bytes(_MIN_SHM)} or more where several GPUs train together",
            spell_bytes(size), "Start the container with --shm-size=1g.",
        )  # fmt: skip
    else:
        yield Item("shared memory", f"{spell_bytes(size)} in {shm}")


def leftovers_check(patient: Patient) -> Iterator[Item]:
    """Locks that are held, and what killed writers left."""
    if patient.workspace is None or not patient.workspace.root.is_dir():
        return
    held = [path for path in _locks(patient) if _is_held(path)]
    left = list(_temporary_files(patient.workspace.root)) if not held else []
    if held:
        yield Item("at work", f"{len(held)} locks are held ({held[0].name}): something runs here")
    elif left:
        yield ill(
            "note", "workspace/leftovers", str(left[0].parent), "no temporary files",
            f"{len(left)}, of writes that were cut off",
            "Nothing: the next write in that folder removes them.",
        )  # fmt: skip
    else:
        yield Item("leftovers", "none: no lock is held, no cut-off write")


def needed_bytes(patient: Patient) -> int:
    """Return about what a run writes, from the configured corpus or the raw files there are."""
    config, workspace = patient.config, patient.workspace
    assert config is not None
    assert workspace is not None
    if config.synthesize.enabled:
        its = config.synthesize
        num = its.num_ffhq_images
        num += its.num_caf_shards * its.num_subjects_per_shard * its.num_ages_per_subject
        raw = num * its.size_px**2 * _BYTES_A_PIXEL
    else:
        raw = _raw_bytes(patient)
    experts = config.train_experts.experts.values()
    tiny = config.synthesize.enabled or (experts and all(e.size == "tiny" for e in experts))
    return int(raw * _COPIES) + _MODELS_BYTES[bool(tiny)]


def file_system_of(path: Path) -> str:
    """Return the type of the file system that a path lies on, `unknown` where it is not told."""
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    try:
        lines = Path("/proc/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        fields = line.split()
        point = fields[1].replace("\\040", " ")
        inside = resolved == point or resolved.startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(best):
            best, kind = point, fields[2]
    return kind


def _probe(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, expectation, what was found, and remedy of what a file system does not keep."""
    first, second = folder / "lock", folder / "Lock2"
    mount = "Use a local disk, or mount it otherwise (NFS 4 with locks)."
    with first.open("a+") as one, first.open("a+") as other:
        try:
            fcntl.flock(one, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_UN)
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield "locks", "locks that exclude", "two holders of one lock", mount
            except BlockingIOError:
                pass
        except OSError as error:
            yield "locks", "locks (flock)", str(error.strerror), mount
    second.write_text("new")
    try:
        second.replace(first)
        if first.read_text() != "new":
            yield "rename", "a rename that replaces", "the old content", mount
    except OSError as error:
        yield "rename", "a rename that replaces", str(error.strerror), mount
    if (folder / "LOCK").exists():
        yield (
            "case", "names that differ by case to be different files", "one file for both",
            "Images whose names differ by case alone would overwrite each other: use another disk.",
        )  # fmt: skip
    ahead_s = first.stat().st_mtime - time.time()
    if abs(ahead_s) > _MAX_CLOCK_S:
        yield (
            "clock", "the times of files to agree with the clock", f"{ahead_s:+.0f} s",
            "Set the clocks of this machine and of the file server by NTP.",
        )  # fmt: skip


def _refusal(folder: Path) -> int | None:
    """Return the errno with which a folder refuses to be written."""
    try:
        with tempfile.TemporaryFile(prefix=".tmp-doctor-", dir=folder) as stream:
            stream.write(b"\0")
    except OSError as error:
        return error.errno or 0
    return None


def _nearest(path: Path) -> Path:
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def _locks(patient: Patient) -> list[Path]:
    assert patient.workspace is not None
    return sorted((patient.workspace.state / "locks").rglob("*.lock"))


def _is_held(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def _temporary_files(root: Path) -> Iterator[Path]:
    seen = 0
    for top in ("data", "stats", "models", "outputs"):
        for current, _, names in os.walk(root / top):
            seen += len(names)
            if seen > _MAX_FILES:
                return
            yield from (Path(current) / name for name in names if name.startswith(".tmp-"))


def _raw_bytes(patient: Patient) -> float:
    """Return the bytes of the raw files; of many, by the mean of the first ones."""
    from agetf_pipeline.data.corpora import caf_folder, ffhq_folder

    assert patient.config is not None
    assert patient.workspace is not None
    total = count = 0
    for find in (ffhq_folder, caf_folder):
        for current, _, names in os.walk(find(patient.config, patient.workspace)):
            count += len(names)
            if count <= _MAX_FILES:
                total += sum(_size(Path(current) / name) for name in names)
    return total * max(1.0, count / _MAX_FILES)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


CHECKS = (folders_check, file_system_check, disk_check, temporary_check, leftovers_check)

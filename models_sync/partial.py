"""A file on its way: preallocated under a name of its own, resumable, renamed when it is whole.

`.models-sync-<file><version><writer>.part` beside the final file takes the bytes; the `.map` of
the same name has 32 bytes for each part: the blake3 of what has landed, zeros before.  The map
is written after the part and flushed with nothing: whoever goes on from it hashes each part that
it claims before believing it.  So a killed process, a power cut and a lost page all cost the
parts that are not there, and nothing else.

The name holds the version, so parts of two versions never meet.  It holds the writer, so two
writers never share a name; `adopt` takes a file over from a writer that is gone by renaming it.
Should that writer not be gone after all, it can do no harm: under a manifest, nothing is ever
written that has not been verified, so both write the same bytes to the same places.

A small file of one part has neither map nor, where the volume allows it, a name before it is
whole: see `nameless`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from pathlib import Path

from blake3 import blake3

from models_sync import nameless
from models_sync.direct import open_direct, write_direct
from models_sync.errors import PartialLost
from models_sync.manifest import PART_BYTES, part_count
from models_sync.names import OWN_PREFIX, is_own_leftover
from models_sync.remote import RemoteObject
from models_sync.state import Identity
from models_sync.volume import named_errors

DIGEST_BYTES = 32
DIRECT_BYTES = 1 << 20
"""Files as large as this go past the page cache, in one part or in many: 300 of this size took a
third less time and half the processor so; of 64 KiB it gained nothing (docs/decisions/0016)."""
_NOTHING = bytes(DIGEST_BYTES)
_PREFIX = f"{OWN_PREFIX}-"
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
"""A link in the place of a file of ours was put there by somebody: it is an error, not a way."""


class Partial:
    """The bytes of one file that have arrived so far.  Parts may be written from any thread."""

    def __init__(
        self,
        root: Path,
        remote: RemoteObject,
        writer: str,
        *,
        direct: bool = True,
        nameless: bool = False,
    ) -> None:
        # Strings: of thousands of small files, pathlib's work on names was a tenth.
        self._final = f"{root}/{remote.path}"
        self.part_size = part_size(remote)
        self.parts = part_count(remote.size, self.part_size)
        self._remote = remote
        self._version = f"{_PREFIX}{_hash(remote.path, 8)}{_hash(_version(remote), 16)}"
        whole_name = f"{self._final.rpartition('/')[0]}/{self._version}{writer}"
        self._part, self._map = f"{whole_name}.part", f"{whole_name}.map"
        self._direct = direct and remote.size >= DIRECT_BYTES
        self._is_nameless = nameless and self.parts == 1 and not self._direct
        self._data_descriptor = self._direct_descriptor = self._map_descriptor = -1

    @property
    def final(self) -> Path:
        """Where it will lie."""
        return Path(self._final)

    def adopt(self, quiet_s: float = 0.0) -> int:
        """Go on with what another writer left of this version; the bytes that it has room for.

        Args:
            quiet_s: leave alone what was written to in the last seconds: without the volume's
                lock its writer may live, and would have to begin anew.
        """
        theirs = []
        for path in self.final.parent.glob(f"{self._version}*.part"):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                found_at = path.lstat()
                if stat.S_ISREG(found_at.st_mode) and time.time() - found_at.st_mtime >= quiet_s:
                    theirs.append((found_at.st_mtime_ns, path))
        for _, found in sorted(theirs, reverse=True):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                found.rename(self._part)
                with contextlib.suppress(FileNotFoundError):
                    found.with_suffix(".map").rename(self._map)
                return min(Path(self._part).stat().st_blocks * 512, self._remote.size)
        return 0

    def reserve(self) -> None:
        """Make room for the whole file.

        Raises:
            VolumeFull: there is none.
            VolumeUnwritable: the folder may not be written.
        """
        from models_sync.blocks import reserve  # noqa: PLC0415 - see the module

        self.open()
        try:
            with named_errors(self._final):
                reserve(self._data_descriptor, self._remote.size)
        finally:
            self.close()

    def open(self) -> None:
        """Open the file, and create it when it is not there yet.

        Raises:
            VolumeUnwritable: the folder may not be written.
        """
        try:
            with named_errors(self._final):
                try:
                    self._data_descriptor = self._create()
                except FileNotFoundError:
                    self.final.parent.mkdir(parents=True, exist_ok=True)
                    self._data_descriptor = self._create()
                if self._direct:
                    self._direct_descriptor = open_direct(self._part)
                if self.parts > 1:
                    self._map_descriptor = os.open(self._map, _OPEN, 0o644)
        except BaseException:
            self.close()
            raise

    def _create(self) -> int:
        if self._is_nameless:
            descriptor = nameless.create(self._final.rpartition("/")[0])
            if descriptor >= 0:
                return descriptor
            self._is_nameless = False  # another file system than the root's
        return os.open(self._part, _OPEN, 0o644)

    def landed(self) -> list[int]:
        """Parts that an earlier attempt says have landed; each is to be hashed before use."""
        if self.parts <= 1:
            return []  # there is no map
        try:
            descriptor = os.open(self._map, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                slots = file.read(self.parts * DIGEST_BYTES)
        except OSError:
            return []
        return [
            part
            for part in range(min(self.parts, len(slots) // DIGEST_BYTES))
            if slots[part * DIGEST_BYTES : (part + 1) * DIGEST_BYTES] != _NOTHING
        ]

    def holds(self, part: int, buffer: memoryview) -> bool:
        """Whether the part on the disk is what the map and, if there is one, the manifest say."""
        size = self.size_of(part)
        with named_errors(self._final):
            read = os.preadv(self._data_descriptor, [buffer[:size]], part * self.part_size)
            slot = os.pread(self._map_descriptor, DIGEST_BYTES, part * DIGEST_BYTES)
        digest = blake3(buffer[:size]).digest()
        return read == size and digest == slot and self.expects(part) in {None, digest.hex()}

    def expects(self, part: int) -> str | None:
        """The digest that the manifest has for a part; None without a manifest."""
        return self._remote.published.parts[part] if self._remote.published else None

    def size_of(self, part: int) -> int:
        """Bytes of a part."""
        return min(self.part_size, self._remote.size - part * self.part_size)

    def write(self, part: int, data: memoryview, digest: bytes) -> None:
        """Put a part, verified already, where it belongs, and mark it.

        Raises:
            VolumeUnwritable: the disk does not take it.
        """
        offset = part * self.part_size
        with named_errors(self._final):
            written = write_direct(self._direct_descriptor, data, offset)
            if written < len(data):
                start = offset + written
                while written < len(data):
                    written += os.pwrite(self._data_descriptor, data[written:], offset + written)
                if self.parts > 1:
                    from models_sync.blocks import start_writing  # noqa: PLC0415 - as above

                    start_writing(self._data_descriptor, start, offset + written - start)
            if self._map_descriptor >= 0:
                os.pwrite(self._map_descriptor, digest, part * DIGEST_BYTES)

    def digest(self, algorithm: str) -> str:
        """The hash of the whole file, read back: for what only a whole can be held against."""
        with named_errors(self._final), os.fdopen(os.dup(self._data_descriptor), "rb") as file:
            file.seek(0)
            return hashlib.file_digest(file, algorithm).hexdigest()

    def flush(self) -> None:
        """Bring the bytes to the disk."""
        with named_errors(self._final):
            os.fsync(self._data_descriptor)

    def publish(self) -> Identity:
        """Give the file its name, at once and whole.  The folder is still to be flushed.

        Returns:
            Which file that is: another process may give the name to its own a moment later.

        Raises:
            PartialLost: another process took it over or removed it.
        """
        with named_errors(self._final):
            now_ns = time.time_ns() // 1_000_000_000 * 1_000_000_000
            os.utime(self._data_descriptor, ns=(now_ns, now_ns))  # see `State.note`
            identity = Identity.of(self._data_descriptor)
            if self._is_nameless:
                try:
                    nameless.give_name(self._data_descriptor, self._final)
                except FileExistsError:  # an older one, or another process was faster
                    nameless.give_name(self._data_descriptor, self._part)
                else:
                    return identity
            try:
                os.replace(self._part, self._final)  # noqa: PTH105 - see `__init__`
            except FileNotFoundError as error:
                raise PartialLost(f"{self._final}: {Path(self._part).name} is gone") from error
            if self.parts > 1:
                Path(self._map).unlink(missing_ok=True)
        return identity

    def close(self) -> None:
        """Let go of the files; what has landed can be gone on with."""
        for descriptor in (self._data_descriptor, self._direct_descriptor, self._map_descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._data_descriptor = self._direct_descriptor = self._map_descriptor = -1

    def discard(self) -> None:
        """Remove the files."""
        Path(self._part).unlink(missing_ok=True)
        Path(self._map).unlink(missing_ok=True)


def part_size(remote: RemoteObject) -> int:
    """Bytes of each part but the last."""
    return remote.published.part_size if remote.published else PART_BYTES


def sweep_own(folder: Path, writer: str) -> None:
    """Remove what this writer has left in a folder whose files another process has brought."""
    own = (f"{writer}.part", f"{writer}.map")
    for entry in _leftovers(folder):
        if entry.name.endswith(own):
            _remove(entry)


def sweep(folder: Path, paths: set[str]) -> None:
    """Remove what is left of earlier or other attempts at the files `paths`, all of them here now.

    Only while we hold the volume's lock.  A writer that we do not know of loses its work, not
    its correctness: it finds the finished files.
    """
    if leftovers := _leftovers(folder):
        hashes = {_hash(path, 8) for path in paths}
        for entry in leftovers:
            if entry.name[len(_PREFIX) :][:8] in hashes:
                _remove(entry)


def _leftovers(folder: Path) -> list[os.DirEntry[str]]:
    """Partial files and maps of any writer in a folder; none in somebody else's, or one gone."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if is_own_leftover(entry.name)]
    except OSError:
        return []


def _remove(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):  # somebody else's, or gone
        os.unlink(entry.path)  # noqa: PTH108 - see `Partial.__init__`


def _version(remote: RemoteObject) -> str:
    content = remote.published.sha256 if remote.published else remote.etag
    return f"{content}/{remote.size}/{part_size(remote)}"


def _hash(text: str, digits: int) -> str:
    return blake3(text.encode()).hexdigest()[:digits]

"""What a download will bring, take and leave out, before it begins."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import msgspec

from quantchat.domain.memory import format_bytes
from quantchat.domain.models import ModelInfo
from quantchat.errors import FetchError, StorageError
from quantchat.hardware.host import free_disk
from quantchat.services.pull.files import Offer, RemoteFile, is_weights
from quantchat.services.pull.names import Wanted
from quantchat.services.pull.words import Described, Fetch, Limits

RESERVE = 64 * 1024**2
"""Bytes of the disk that a download must leave free."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A repository, the files that are taken of it, and room for them.

    Attributes:
        missing: Bytes that have yet to come.
        free: Bytes that the disk has left; None if that cannot be told.
    """

    described: Described
    files: tuple[RemoteFile, ...]
    missing: int
    free: int | None

    @property
    def wanted(self) -> Wanted:
        """The repository and its revision."""
        return self.described.wanted

    @property
    def total(self) -> int:
        """Bytes of all files that are taken."""
        return sum(file.size for file in self.files)

    @property
    def left_out(self) -> tuple[Offer, ...]:
        """The files that are not taken."""
        taken = {file.path for file in self.files}
        return tuple(offer for offer in self.described.offers if offer.file.path not in taken)

    @property
    def model(self) -> ModelInfo | None:
        """What the hub's own choice of files makes."""
        return self.described.model

    def retaken(self, taken: Collection[str]) -> Plan:
        """Return the plan with these files instead."""
        return _plan(self.described, taken, self.free)

    @property
    def fits_on_disk(self) -> bool:
        """Whether the disk has room; also where that cannot be told."""
        return self.free is None or self.missing == 0 or self.missing + min(RESERVE, self.missing) <= self.free

    @property
    def why_no_weights(self) -> str:
        """Why no file that is taken holds weights, and what to do; empty if one does."""
        if any(is_weights(file.path) for file in self.files):
            return ""
        return _no_weights(self.described.offers)

    def notes(self) -> list[str]:
        """Say what is worth knowing before the download, one line each."""
        lines = [self.why_no_weights] if self.why_no_weights else []
        if self.described.note:
            lines.append(self.described.note)
        if self.described.gated:
            lines.append("Its owner wants you to accept terms on its page before the files may be fetched.")
        if not self.fits_on_disk:
            lines.append(str(self.no_room()))
        return lines

    def no_room(self) -> StorageError:
        """The error of a disk without room for this."""
        lacking = self.missing + min(RESERVE, self.missing) - (self.free or 0)
        detail = f"{format_bytes(self.missing)} to come, {format_bytes(self.free or 0)} free"
        remedy = f"Free {format_bytes(lacking)} there, or move the cache with HF_HUB_CACHE"
        return StorageError(f"{self.described.cache} has no room for this", detail, remedy, code="disk")

    def task(self, limits: Limits | None = None) -> Fetch:
        """Make the task of the download process.

        Raises:
            FetchError: if no file is taken.
            StorageError: if the disk has no room.
        """
        if not self.files:
            raise FetchError(f"No file of {self.wanted} is wanted", remedy="Take some with --include, or --all")
        if not self.fits_on_disk:
            raise self.no_room()
        return Fetch(
            wanted=self.wanted,
            commit=self.described.commit,
            files=self.files,
            cache=self.described.cache,
            limits=limits or Limits(),
        )


def make_plan(described: Described) -> Plan:
    """Plan the download of the files that are taken by default, on the disk as it is now."""
    taken = {offer.file.path for offer in described.offers if offer.taken}
    return _plan(described, taken, free_disk(Path(described.cache)))


def _plan(described: Described, taken: Collection[str], free: int | None) -> Plan:
    files = tuple(offer.file for offer in described.offers if offer.file.path in taken)
    missing = sum(file.size - described.present.get(file.path, 0) for file in files)
    return Plan(described=described, files=files, missing=missing, free=free)


def _no_weights(offers: Collection[Offer]) -> str:
    names = [offer.file.path for offer in offers]
    if any(name.endswith(".gguf") for name in names):
        return "Its weights are GGUF files: take the one you want, such as with --include '*Q4_K_M.gguf'."
    if any(is_weights(name) for name in names):
        return "Its weights are no safetensors; pickles can run code when they are loaded. --all takes everything."
    return "It holds no weights."

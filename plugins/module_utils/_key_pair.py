# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""A key and its certificate, which change in one step: at no moment does one stand beside the other's predecessor."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.wattfleet.energy.plugins.module_utils.guard import durable


class KeyPair:
    """`<name>.key` and `<name>.crt` in a folder.

    Both are plain files, but for the time of a change: then both are links into `.<name>.pair`, and that is a link to
    the folder `.<name>.old` or `.<name>.new`. Renaming this one link changes both. Who reads the two files need not
    know, and what a power cut leaves is the old pair or the new one, whoever finishes the change and when.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.key = folder / f"{name}.key"
        self.certificate = folder / f"{name}.crt"
        self._previous = folder / f"{name}.crt.previous"
        self._link = folder / f".{name}.pair"
        self._old = folder / f".{name}.old"
        self._new = folder / f".{name}.new"

    @property
    def is_changing(self) -> bool:
        """Whether a change was begun that is not finished."""
        return self._link.is_symlink() or self._old.exists() or self._new.exists()

    def change(self, key: Path, certificate: Path) -> None:
        """Put two other files in place. They keep the names they have, and what was before is kept for `back`."""
        self._fill(self._old, self.key, self.certificate)
        self._fill(self._new, key, certificate)
        durable.link(self._link, self._old.name)
        # The certificate is the first that is a link and the last: by that the role knows that a change was cut.
        for path in (self.certificate, self.key):
            durable.link(path, f"{self._link.name}/{path.name}")
        durable.link(self._link, self._new.name)

    def back(self) -> None:
        """Put back what was before the change that is not finished."""
        durable.link(self._link, self._old.name)

    def finish(self) -> None:
        """Make plain files of those in use. Of the others the certificate is kept, as `<name>.crt.previous`."""
        is_new = self._link.is_symlink() and self._link.readlink().name == self._new.name
        in_use, others = (self._new, self._old) if is_new else (self._old, self._new)
        replaced = others / self.certificate.name
        if is_new and replaced.exists() and not replaced.samefile(self.certificate):
            durable.rename(replaced, self._previous)
        durable.remove_tree(others)
        for path in (self.key, self.certificate):
            if path.is_symlink():
                self._make_plain(path, in_use / path.name)
        for path in (self._link, self.key, self.certificate):
            durable.temporary_name(path).unlink(missing_ok=True)
        durable.remove(self._link)
        durable.remove_tree(in_use)

    def _fill(self, folder: Path, key: Path, certificate: Path) -> None:
        """Give the two a second name in a folder of their own."""
        durable.make_directory(folder)
        for path, name in ((key, self.key.name), (certificate, self.certificate.name)):
            if path.exists():
                os.link(path, folder / name)
                durable.watch("made", folder / name)
        durable.sync_file(folder)

    def _make_plain(self, path: Path, content: Path) -> None:
        if not content.exists():  # there was none before the change
            durable.remove(path)
            return
        spare = durable.temporary_name(path)
        spare.unlink(missing_ok=True)
        os.link(content, spare)
        durable.rename(spare, path)

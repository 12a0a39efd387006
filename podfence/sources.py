"""Where a command's objects come from: files, or a cluster, with a change on top of either."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce, wraps
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from podfence.options import api_options, namespace_option, recursive_option
from policy.errors import UnknownVerdict

if TYPE_CHECKING:
    from msgspec import Raw

    from compiler.compile import Compiled
    from policy.model import Cluster


class Found(Struct, frozen=True):
    """`unseen` is what could not be read, so that no verdict can be sure. `files` are those that were read, `sent` the
    policies of a cluster as its API server sent them."""

    compiled: Compiled
    unseen: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    sent: tuple[Raw, ...] = ()


class Sources(Struct, frozen=True):
    """What the options say. `namespace` is that of names without one."""

    paths: tuple[str, ...]
    recursive: bool
    context: str | None
    kubeconfig: str | None
    more: tuple[str, ...]
    gone: tuple[str, ...]
    namespace: str = "default"

    @property
    def reads_once(self) -> bool:
        """Whether what was read can't be read again."""
        return "-" in (*self.paths, *self.more)

    @property
    def words(self) -> list[str]:
        """The options again, for another command that is to read the same."""
        given = [("-f", each) for each in self.paths]
        given += [("--with", each) for each in self.more] + [("--without", each) for each in self.gone]
        given += [("--context", self.context or ""), ("--kubeconfig", self.kubeconfig or ""), ("-n", self.namespace)]
        return [*(word for option, value in given if value for word in (option, value)), *["-R"][: self.recursive]]

    def all(self) -> Compiled:
        """Every object, compiled. UnknownVerdict where one could not be read: it might change any answer."""
        return self.everything().compiled

    def everything(self) -> Found:
        """The same, with where it came from."""
        found = self.compiled()
        if found.unseen:
            raise UnknownVerdict(f"can't be known: {'; '.join(found.unseen)}")
        return found

    def compiled(self, names: Sequence[str] = ()) -> Found:
        """The objects, compiled. Where `names` are all that is asked about, namespaces that can't matter to them need
        not be read."""
        from compiler.compile import Compiled

        if self.paths:
            from podfence.inputs import read_cluster

            loaded = read_cluster(self.paths, self.recursive, about=self._about(names))
            cluster, files = self._changed(loaded.cluster)
            return Found(Compiled(cluster), files=(*loaded.files, *files))
        from podfence.cluster import read_cluster as read_api

        read = read_api(self.context, self.kubeconfig, names, self.namespace)
        cluster, files = self._changed(read.cluster)
        return Found(Compiled(cluster), read.unseen, files, read.policies)

    def _changed(self, cluster: Cluster) -> tuple[Cluster, tuple[str, ...]]:
        """With the change on top, and the files that hold it."""
        files: tuple[str, ...] = ()
        if self.more:
            from podfence.inputs import read_cluster
            from podfence.overlay import overlay

            loaded = read_cluster(self.more, recursive=False)
            cluster, files = overlay(cluster, loaded.cluster), loaded.files
        if self.gone:
            from podfence.overlay import without

            cluster = without(cluster, self.gone)
        return cluster, files

    def _about(self, names: Sequence[str]) -> tuple[str, ...]:
        """The namespaces that matter; none where all do."""
        from podfence.scope import scope_of

        scope = scope_of(names, self.namespace)
        # Objects that say no namespace are in `default`, and can't be told by their bytes.
        if not names or scope.everywhere or scope.addresses or "default" in scope.namespaces:
            return ()
        return scope.namespaces


_OPTIONS = (
    click.option(
        "-f",
        "--filename",
        "paths",
        metavar="PATH",
        multiple=True,
        help="A file or folder of manifests, or - for stdin; may be given again. Without: the cluster.",
    ),
    recursive_option,
    api_options,
    click.option("--with", "more", metavar="FILE", multiple=True, help="As if these objects were there, or were so."),
    click.option(
        "--without", "gone", metavar="NS/KIND/NAME", multiple=True, help="As if it were gone: shop/netpol/deny-all."
    ),
)


def source_options(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Gathers the options of where objects come from into one `sources` argument, with the namespace of names."""
    return _gathering(callback, (*_OPTIONS, namespace_option))


def object_options(callback: Callable[..., Any]) -> Callable[..., Any]:
    """The same for commands that are given no names."""
    return _gathering(callback, _OPTIONS)


def _gathering(callback: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    @wraps(callback)  # also takes over the options that the callback has already
    def gathered(**arguments: Any) -> Any:
        fields = {name: arguments.pop(name) for name in Sources.__struct_fields__ if name in arguments}
        return callback(sources=Sources(**fields), **arguments)

    return reduce(lambda decorated, option: option(decorated), reversed(options), gathered)

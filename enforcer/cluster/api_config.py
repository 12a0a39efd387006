"""Where the API server is and who we are to it, by the `kubernetes` package: in a cluster, by kubeconfig and context,
by exec plugins. Importing it takes a quarter of a second and 20 MB, so that only a connection does."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import urllib3

from enforcer.cluster.api import Api, keepalive_options
from policy.errors import ApiUnconfigured
from policy.labels import bare

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def connect(
    kubeconfig: str | None = None,
    context: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
    environment: Mapping[str, str] = os.environ,
    **options: Any,
) -> Api:
    """A connection as `kubeconfig` says; without one as a pod's service account does, or else the default kubeconfig.
    `options` are those of `Api`. ApiUnconfigured where nothing says it; nothing is sent yet."""
    return Api(lambda: configured(kubeconfig, context, service_account, environment), _pool, **options)


def configured(
    kubeconfig: str | None = None,
    context: str | None = None,
    service_account: Path = SERVICE_ACCOUNT,
    environment: Mapping[str, str] = os.environ,
) -> Any:
    """A configuration of the `kubernetes` package, all of it read as it is now. ApiUnconfigured as for `connect`."""
    told = kubeconfig or context or environment.get("KUBECONFIG")
    if not told and "KUBERNETES_SERVICE_HOST" in environment:
        return _loaded(_from_pod(service_account, environment))
    return _loaded(_from_file(kubeconfig, context))


def prepare() -> None:
    """Imports what `connect` imports, which takes more time than all else that it does."""
    import_module("kubernetes.config.kube_config")
    import_module("kubernetes.client.rest")


def _loaded(fill: Callable[[Any], None]) -> Any:
    from kubernetes.client.configuration import Configuration

    configuration = Configuration()
    configuration.socket_options = keepalive_options()
    try:
        fill(configuration)
    except Exception as error:  # a file that makes no sense fails there in many ways
        raise ApiUnconfigured(f"the API server can't be found: {bare(' '.join(str(error).split()))}") from error
    return configuration


def _from_pod(folder: Path, environment: Mapping[str, str]) -> Callable[[Any], None]:
    from kubernetes.config.incluster_config import InClusterConfigLoader

    loader = InClusterConfigLoader(str(folder / "token"), str(folder / "ca.crt"), environ=environment)
    return lambda configuration: loader.load_and_set(configuration)


def _from_file(kubeconfig: str | None, context: str | None) -> Callable[[Any], None]:
    from kubernetes.config.kube_config import load_kube_config

    def fill(configuration: Any) -> None:
        load_kube_config(kubeconfig, context, client_configuration=configuration, persist_config=False)

    return fill


def _pool(configuration: Any) -> urllib3.PoolManager:
    from kubernetes.client.rest import RESTClientObject

    pool: urllib3.PoolManager = RESTClientObject(configuration).pool_manager
    return pool

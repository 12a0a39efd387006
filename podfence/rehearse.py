"""`podfence rehearse`: the connections that proposed policies would cut, before anything is applied."""

from __future__ import annotations

import click
from click.core import ParameterSource

from podfence.node_options import NodeOptions, compile_files, node_options, view_of
from podfence.options import agents_options, api_options, files_option, format_option, recursive_option
from podfence.output import Form, line, show
from podfence.rehearsed import Rehearsed, audited_of, lines, rehearsed


@click.command("rehearse")
@files_option
@recursive_option
@node_options
@agents_options("Of every node, through its agent; -f is then what would be applied to the cluster.")
@api_options
@click.option("--exit-code", is_flag=True, help="End with 1 where a connection would be cut.")
@format_option
@click.pass_context
def command(
    ctx: click.Context,
    paths: tuple[str, ...],
    recursive: bool,
    options: NodeOptions,
    through_agents: bool,
    agents_namespace: str,
    context: str | None,
    kubeconfig: str | None,
    exit_code: bool,
    form: Form,
) -> int:
    """Show which connections the policies in the files would cut. Changes nothing.

    \b
    On a node, the files hold what would be applied there: pods, namespaces and the proposed policies.
    With --agents, from anywhere, they are put on top of what the API server has (--context, --kubeconfig).
    Read is the kernel's connection table, so UDP and connections that just closed are in it too.
    Those that podfence has ended already are not told again.
    """
    if through_agents:
        from podfence.rehearse_agents import Proposal, rehearse_nodes

        only = options.node if ctx.get_parameter_source("node") == ParameterSource.COMMANDLINE else ""
        proposal = Proposal(paths, recursive, context, kubeconfig, options.node_egress, agents_namespace, only)
        return rehearse_nodes(proposal, exit_code, form)
    answer = _here(paths, recursive, options)
    show(form, answer, lambda: ())
    if form == "text":
        for text in lines(answer):
            line(text)
    return 1 if exit_code and answer.cut else 0


def _here(paths: tuple[str, ...], recursive: bool, options: NodeOptions) -> Rehearsed:
    from enforcer.attachment.links import own_addresses
    from enforcer.connections.flows import known_addresses
    from enforcer.connections.rehearsal import cuts
    from enforcer.connections.revocation import Judge
    from enforcer.keeping.host import read
    from enforcer.kernel import conntrack
    from enforcer.kernel.backend import detect
    from enforcer.readback.status import status
    from enforcer.rules.layout import local_pods
    from policy.cidr import BITS

    compiled = compile_files(paths, recursive)
    backend = detect(options.backend)
    view = view_of(compiled, options)
    own = own_addresses(BITS)
    before = [read(backend, family) for family in backend.families]
    local = {address for pod in compiled.cluster.pods if pod.key in view.veths for address in pod.addresses}
    released = {address for actual in before for address in known_addresses(actual)} - local
    judge = Judge(compiled, view, local_pods(compiled, view.name), own, released)
    doomed = conntrack.doomed(judge, options.mark)
    audited = [audited_of(denied) for actual in before for denied in status(actual).audited]
    first_sync = not any(actual.tables.chains for actual in before)
    return rehearsed(cuts(compiled, view, own, released, doomed), first_sync, audited)

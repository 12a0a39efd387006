"""Three nodes whose agents follow an API server while things break, and probes that never stop.

    churn ─► history (API server of each node) ─► agents ─► kernel
      │                                             │
      └─► timeline: what holds since when ◄─ programmed?        probes ─► pods, nodes, outside
                        │                                         │
                        └────────────► judge: each probe against the oracle ◄──┘

The promise: a probe that is judged wrong is a bug of podfence or of the soak, and never a matter of timing. A change is
in transition from before it is sent until every agent has said that its kernel holds it; only a flow that the change
decides otherwise may then have either verdict. No transition is longer than a bound that the run states.
"""

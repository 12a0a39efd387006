"""What rules and sets that are installed mean, read back without trust in what made them: `verify` proves them equal to
what was wanted or finds a packet that tells them apart, `walk` follows one flow. Pure.
"""

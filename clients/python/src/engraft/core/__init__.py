"""What both clients do, written once.

Everything here is `async` and reaches the network, the clock and other threads only through a `Transport`. That of
`waiting` suspends until they are done. That of `blocking` never suspends, so that `run` drives the same coroutines to
their end without an event loop.
"""

"""The pure core: `Core.apply(group, record, offset)` is a function of state, record and log time alone.

`core` applies records and moves log time; `timers` says what is due; `group` is what is held; `judge` says what is true
of a group; `revise` turns that into revisions of discrepancies and items; `explain` words them.
"""

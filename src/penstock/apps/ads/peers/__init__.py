"""The ads job as other engines do it, a program per engine, each run by `penstock.bench.peers.harness`.

Every program answers the same question over the same backlog with the checks of the contract as far as its engine can
make them; the docstring of each says which it cannot. Rows of results are `COLUMNS`.
"""

COLUMNS = ("campaign_id", "window_start_us", "count", "views", "clicks", "purchases", "max_produce_time_ms")

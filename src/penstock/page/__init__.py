"""The live page: a pipeline's graph, tables, dead letters and plots in a browser, beside the job or inside it.

It asks the state what `status`, `sql` and `dlq` ask, in the same way, so it shows what they show. It never writes but
where a person presses Replay, Drop or Apply.
"""

-- How old the inputs of each account are: the newest of them, and whether any price is stale or missing.
SELECT account_id, max(as_of) AS as_of, bool_or(stale) AS stale, bool_or(beta_missing) AS beta_missing
FROM legs
GROUP BY account_id

-- The least equity of each account under any shock of the index by at most 6%, either way.
SELECT account_id, min(equity) AS worst_equity
FROM stress_results
WHERE of_index AND shock BETWEEN -0.06 AND 0.06
GROUP BY account_id

-- What each account holds: the sum of its fills, long or short.
SELECT account_id, symbol, sum(quantity) AS quantity, max(timestamp) AS filled_at
FROM fills
GROUP BY account_id, symbol
HAVING sum(quantity) <> 0

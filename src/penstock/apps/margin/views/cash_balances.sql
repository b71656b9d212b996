-- Cash of each account: its entries, and what its fills cost or brought. Every account that was ever named is here.
SELECT account_id, sum(amount) AS cash, max(timestamp) AS moved_at
FROM (
    SELECT account_id, amount, timestamp FROM cash
    UNION ALL
    SELECT account_id, CAST(-(CAST(quantity AS DECIMAL(38,6)) * price) AS DECIMAL(20,4)) AS amount, timestamp FROM fills
)
GROUP BY account_id

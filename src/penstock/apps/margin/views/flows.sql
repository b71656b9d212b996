-- What moves SMA beside the market: cash entries, and what trades take of it or give back.
SELECT
    b.account_id,
    coalesce(e.amount, 0) + CAST(coalesce(t.longs, 0) * r.initial_long AS DECIMAL(20,4))
        + CAST(coalesce(t.shorts, 0) * greatest(r.initial_short - 1, 0) AS DECIMAL(20,4)) AS flow
FROM cash_balances b
LEFT JOIN (SELECT account_id, sum(amount) AS amount FROM cash GROUP BY account_id) e ON e.account_id = b.account_id
LEFT JOIN (
    SELECT account_id, sum(closed_long - opened_long) AS longs, sum(closed_short - opened_short) AS shorts
    FROM average_costs GROUP BY account_id
) t ON t.account_id = b.account_id
CROSS JOIN rules r

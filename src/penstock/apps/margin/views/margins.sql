-- The margin of each account, without what depends on its past.
SELECT
    q.account_id,
    q.cash,
    q.lmv,
    q.smv,
    q.gross,
    q.equity,
    q.requirement,
    q.equity - q.requirement AS excess,
    CAST(q.lmv * r.initial_long AS DECIMAL(20,4))
        + CAST(q.smv * greatest(r.initial_short - 1, 0) AS DECIMAL(20,4)) AS initial_requirement,
    greatest(q.requirement - q.equity, 0) AS call_amount,
    CASE
        WHEN q.lmv > q.long_charge
            THEN CAST(
                nullif(greatest(decimal_div(
                    q.requirement - q.long_charge + q.smv - q.cash,
                    1 - decimal_div(q.long_charge, q.lmv, 10), 4), 0), 0) AS DECIMAL(28,4))
    END AS trigger_value,
    CASE
        WHEN q.requirement > q.equity
            THEN CAST(decimal_div(q.requirement - q.equity, decimal_div(q.requirement, q.gross, 10), 4) AS DECIMAL(28,4))
        WHEN q.requirement IS NOT NULL THEN 0
    END AS sale_needed,
    q.beta_weighted_exposure,
    coalesce(f.stale, FALSE) AS stale,
    coalesce(f.beta_missing, FALSE) AS beta_missing,
    NOT c.seen AS no_cash_source,
    greatest(b.moved_at, f.as_of) AS as_of
FROM requirements q
JOIN cash_balances b ON b.account_id = q.account_id
LEFT JOIN freshness f ON f.account_id = q.account_id
CROSS JOIN rules r
CROSS JOIN cash_seen c

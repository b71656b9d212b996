-- The margin of each account, without what depends on its past.
SELECT
    account_id,
    cash,
    lmv,
    smv,
    gross,
    equity,
    requirement,
    equity - requirement AS excess,
    CAST(lmv * initial_long AS DECIMAL(20,4))
        + CAST(smv * greatest(initial_short - 1, 0) AS DECIMAL(20,4)) AS initial_requirement,
    CASE WHEN requirement IS NOT NULL THEN greatest(requirement - equity, 0) END AS call_amount,
    CASE
        WHEN lmv > long_charge
            THEN CAST(
                nullif(greatest(decimal_div(
                    requirement - long_charge + smv - cash,
                    1 - decimal_div(long_charge, lmv, 10), 4), 0), 0) AS DECIMAL(28,4))
    END AS trigger_value,
    CASE
        WHEN requirement > equity
            THEN CAST(decimal_div(requirement - equity, decimal_div(requirement, gross, 10), 4) AS DECIMAL(28,4))
        WHEN requirement IS NOT NULL THEN 0
    END AS sale_needed,
    beta_weighted_exposure,
    stale,
    beta_missing,
    no_cash_source,
    as_of
FROM (
    SELECT
        q.account_id,
        q.cash,
        q.lmv,
        q.smv,
        q.gross,
        q.equity,
        q.requirement,
        q.long_charge,
        q.beta_weighted_exposure,
        r.initial_long,
        r.initial_short,
        coalesce(f.stale, FALSE) AS stale,
        coalesce(f.beta_missing, FALSE) AS beta_missing,
        NOT c.seen AS no_cash_source,
        greatest(b.moved_at, f.as_of) AS as_of
    FROM requirements q
    JOIN cash_balances b ON b.account_id = q.account_id
    LEFT JOIN freshness f ON f.account_id = q.account_id
    CROSS JOIN rules r
    CROSS JOIN cash_seen c
)

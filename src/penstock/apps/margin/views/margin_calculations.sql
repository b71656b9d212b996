-- The margin of each account.
SELECT
    m.account_id,
    m.cash,
    m.lmv,
    m.smv,
    m.gross,
    m.equity,
    m.requirement,
    m.excess,
    m.initial_requirement,
    k.sma,
    m.call_amount,
    m.trigger_value,
    m.sale_needed,
    m.beta_weighted_exposure,
    coalesce(k.intraday_deficit, 0) AS intraday_deficit,
    w.worst_equity,
    m.stale,
    m.beta_missing,
    m.no_cash_source,
    m.as_of
FROM margins m
LEFT JOIN marks k ON k.account_id = m.account_id
LEFT JOIN worst_cases w ON w.account_id = m.account_id

-- Each holding at its price. One without a price has no value, and is stale: nothing is guessed.
SELECT
    h.account_id,
    h.symbol,
    CAST(h.quantity AS DECIMAL(18,6)) AS quantity,
    s.price,
    CAST(h.quantity * s.price AS DECIMAL(20,4)) AS market_value,
    CAST(CAST(h.quantity * s.price AS DECIMAL(20,4)) * coalesce(s.beta, 1) AS DECIMAL(20,4))
        AS beta_value,
    coalesce(s.beta, 1) AS beta,
    coalesce(s.beta_missing, TRUE) AS beta_missing,
    coalesce(s.stale, TRUE) AS stale,
    greatest(h.filled_at, s.priced_at) AS as_of
FROM holdings h
LEFT JOIN symbols s ON s.symbol = h.symbol

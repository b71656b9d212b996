-- Each priced symbol: its price, its beta (1 where it is missing) and whether the price is stale.
SELECT
    p.symbol,
    p.price,
    p.timestamp AS priced_at,
    coalesce(b.beta, 1) AS beta,
    b.beta IS NULL AS beta_missing,
    s.symbol IS NOT NULL AS stale
FROM prices p
LEFT JOIN betas b ON b.symbol = p.symbol
LEFT JOIN stale_symbols s ON s.symbol = p.symbol

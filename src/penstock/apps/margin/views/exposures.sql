-- The sums over the legs of each account{case_note}.
SELECT
    {case_columns}account_id,
    sum(CASE WHEN quantity > 0 THEN market_value ELSE 0 END) AS lmv,
    sum(CASE WHEN quantity < 0 THEN -market_value ELSE 0 END) AS smv,
    sum(CASE WHEN quantity > 0 THEN charge ELSE 0 END) AS long_charge,
    sum(CASE WHEN quantity < 0 THEN charge ELSE 0 END) AS short_charge,
    sum(beta_value) AS beta_weighted_exposure,
    count(*) FILTER (WHERE quantity < 0) AS shorts,
    count(*) FILTER (WHERE market_value IS NULL) AS unpriced
FROM {prefix}charges
GROUP BY {case_columns}account_id

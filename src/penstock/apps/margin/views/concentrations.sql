-- What the house adds for a leg that is a large part of its account's gross.
SELECT
    c.*,
    CASE
        WHEN abs(c.market_value) > CAST((e.lmv + e.smv) * r.concentration_share AS DECIMAL(20,4))
            THEN CAST(abs(c.market_value) * r.concentration_add_on AS DECIMAL(20,4))
        ELSE 0
    END AS add_on
FROM {prefix}charges c
JOIN {prefix}exposures e ON e.account_id = c.account_id{case_join_ec}
CROSS JOIN rules r
WHERE c.market_value IS NOT NULL

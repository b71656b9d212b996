-- Each leg under each scenario. A share falls to nothing at most.
SELECT
    scenario,
    account_id,
    symbol,
    quantity,
    CAST(decimal_div(market_value, quantity, 6) AS DECIMAL(18,6)) AS price,
    market_value,
    CAST(market_value * beta AS DECIMAL(20,4)) AS beta_value
FROM (
    SELECT
        s.scenario,
        l.account_id,
        l.symbol,
        l.quantity,
        l.beta,
        CAST(CASE
            WHEN l.quantity > 0 THEN greatest(l.market_value + CAST(CASE
                WHEN x.shock IS NULL THEN l.beta_value * s.shock ELSE l.market_value * x.shock END AS DECIMAL(20,4)), 0)
            ELSE least(l.market_value + CAST(CASE
                WHEN x.shock IS NULL THEN l.beta_value * s.shock ELSE l.market_value * x.shock END AS DECIMAL(20,4)), 0)
        END AS DECIMAL(20,4)) AS market_value
    FROM legs l
    CROSS JOIN shocks s
    LEFT JOIN symbol_shocks x ON x.scenario = s.scenario AND x.symbol = l.symbol
)

-- Each position as the desk sees it.
SELECT
    c.account_id,
    c.symbol,
    c.quantity,
    a.average_cost,
    c.price,
    c.market_value,
    c.beta,
    c.charge + coalesce(n.add_on, 0) AS requirement,
    t.trigger_price,
    c.stale,
    c.as_of
FROM charges c
LEFT JOIN concentrations n ON n.account_id = c.account_id AND n.symbol = c.symbol
LEFT JOIN triggers t ON t.account_id = c.account_id AND t.symbol = c.symbol
LEFT JOIN average_costs a ON a.account_id = c.account_id AND a.symbol = c.symbol

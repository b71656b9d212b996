-- Each position as the desk sees it.
SELECT
    l.account_id,
    l.symbol,
    l.quantity,
    a.average_cost,
    l.price,
    l.market_value,
    l.beta,
    c.charge + coalesce(n.add_on, 0) AS requirement,
    t.trigger_price,
    l.stale,
    l.as_of
FROM legs l
JOIN charges c ON c.account_id = l.account_id AND c.symbol = l.symbol
LEFT JOIN concentrations n ON n.account_id = l.account_id AND n.symbol = l.symbol
LEFT JOIN triggers t ON t.account_id = l.account_id AND t.symbol = l.symbol
LEFT JOIN average_costs a ON a.account_id = l.account_id AND a.symbol = l.symbol

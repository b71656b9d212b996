-- What excess is made of as one leg's price moves: `rest` does not move with it, `rate` is what the house adds per
-- dollar of it, for the add-ons that are in force now. `floor_rest` is the same where minimum equity rules.
SELECT
    c.account_id,
    c.symbol,
    c.quantity,
    c.market_value,
    q.equity - c.market_value - (q.leg_charges - c.charge - coalesce(n.add_on, 0)) - (q.beta_add_on - CASE
        WHEN q.beta_add_on > 0 THEN CAST(abs(c.market_value) * r.beta_exposure_add_on AS DECIMAL(20,4)) ELSE 0 END) AS rest,
    CASE WHEN n.add_on > 0 THEN r.concentration_add_on ELSE 0 END
        + CASE WHEN q.beta_add_on > 0 THEN r.beta_exposure_add_on ELSE 0 END AS rate,
    CASE WHEN q.shorts > 0 OR q.cash < 0 THEN q.equity - c.market_value - r.minimum_equity END AS floor_rest
FROM charges c
JOIN requirements q ON q.account_id = c.account_id
LEFT JOIN concentrations n ON n.account_id = c.account_id AND n.symbol = c.symbol
CROSS JOIN rules r
WHERE NOT q.unpriced

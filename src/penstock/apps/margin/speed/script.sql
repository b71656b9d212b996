-- What one would write by hand: all figures of all accounts, from holdings and prices. `;` ends each statement.
CREATE OR REPLACE TEMP TABLE legs AS
SELECT
    *,
    CASE
        WHEN quantity > 0 AND price < 5 THEN market_value
        WHEN quantity > 0 THEN CAST(market_value * 0.25 AS DECIMAL(20,4))
        WHEN price >= 5 THEN greatest(
            CAST(-market_value * 0.30 AS DECIMAL(20,4)), CAST(CAST(-quantity AS DECIMAL(38,6)) * 5 AS DECIMAL(20,4)))
        ELSE greatest(-market_value, CAST(CAST(-quantity AS DECIMAL(38,6)) * 2.5 AS DECIMAL(20,4)))
    END AS charge
FROM (
    SELECT
        h.account_id,
        h.symbol,
        h.quantity,
        h.average_cost,
        s.price,
        s.beta,
        CAST(h.quantity * s.price AS DECIMAL(20,4)) AS market_value,
        CAST(CAST(h.quantity * s.price AS DECIMAL(20,4)) * s.beta AS DECIMAL(20,4)) AS beta_value,
        greatest(h.filled_at, s.priced_at) AS as_of
    FROM holdings h JOIN symbols s ON s.symbol = h.symbol
);

CREATE OR REPLACE TEMP TABLE sums AS
SELECT
    account_id,
    coalesce(sum(market_value) FILTER (WHERE quantity > 0), 0) AS lmv,
    coalesce(sum(-market_value) FILTER (WHERE quantity < 0), 0) AS smv,
    coalesce(sum(charge) FILTER (WHERE quantity > 0), 0) AS long_charge,
    sum(charge) AS charge,
    sum(beta_value) AS beta_value,
    count(*) FILTER (WHERE quantity < 0) AS shorts,
    max(as_of) AS as_of
FROM legs
GROUP BY account_id;

CREATE OR REPLACE TEMP TABLE sized AS
SELECT
    l.*,
    CASE WHEN abs(l.market_value) > CAST((e.lmv + e.smv) * 0.30 AS DECIMAL(20,4))
        THEN CAST(abs(l.market_value) * 0.10 AS DECIMAL(20,4)) ELSE 0 END AS add_on
FROM legs l JOIN sums e ON e.account_id = l.account_id;

CREATE OR REPLACE TEMP TABLE worst AS
SELECT account_id, min(equity) AS worst_equity
FROM (
    SELECT l.account_id, x.shock, any_value(c.cash) + sum(CASE
        WHEN l.quantity > 0 THEN greatest(l.market_value + CAST(l.beta_value * x.shock AS DECIMAL(20,4)), 0)
        ELSE least(l.market_value + CAST(l.beta_value * x.shock AS DECIMAL(20,4)), 0) END) AS equity
    FROM legs l JOIN balances c ON c.account_id = l.account_id CROSS JOIN shocks x
    WHERE x.shock BETWEEN -0.06 AND 0.06
    GROUP BY l.account_id, x.shock
)
GROUP BY account_id;

CREATE OR REPLACE TEMP TABLE accounts AS
SELECT
    *,
    greatest(
        charge + add_on + beta_add_on, CASE WHEN shorts > 0 THEN 2000 ELSE least(2000, lmv) END) AS requirement
FROM (
    SELECT
        e.*,
        c.cash,
        c.cash + e.lmv - e.smv AS equity,
        greatest(c.moved_at, e.as_of) AS newest,
        k.add_on,
        CASE WHEN abs(e.beta_value) > (c.cash + e.lmv - e.smv) * 2
            THEN CAST((e.lmv + e.smv) * 0.05 AS DECIMAL(20,4)) ELSE 0 END AS beta_add_on
    FROM sums e
    JOIN balances c ON c.account_id = e.account_id
    JOIN (SELECT account_id, sum(add_on) AS add_on FROM sized GROUP BY account_id) k ON k.account_id = e.account_id
);

CREATE OR REPLACE TABLE margin_calculations AS
SELECT
    a.account_id,
    cash,
    lmv,
    smv,
    lmv + smv AS gross,
    equity,
    requirement,
    equity - requirement AS excess,
    CAST(lmv * 0.50 AS DECIMAL(20,4)) + CAST(smv * 0.50 AS DECIMAL(20,4)) AS initial_requirement,
    CASE WHEN requirement IS NOT NULL THEN greatest(requirement - equity, 0) END AS call_amount,
    CASE WHEN lmv > long_charge THEN CAST(nullif(greatest(decimal_div(
        requirement - long_charge + smv - cash, 1 - decimal_div(long_charge, lmv, 10), 4), 0), 0) AS DECIMAL(28,4))
        END AS trigger_value,
    CASE WHEN requirement > equity
        THEN CAST(decimal_div(requirement - equity, decimal_div(requirement, lmv + smv, 10), 4) AS DECIMAL(28,4))
        ELSE 0 END AS sale_needed,
    beta_value AS beta_weighted_exposure,
    worst_equity,
    newest AS as_of
FROM accounts a JOIN worst w ON w.account_id = a.account_id;

CREATE OR REPLACE TABLE positions AS
SELECT
    account_id,
    symbol,
    quantity,
    average_cost,
    price,
    market_value,
    beta,
    charge + add_on AS requirement,
    TRY_CAST(CASE
        WHEN quantity > 0 AND (slope > 0 OR rest >= 0) THEN greatest(
            CASE
                WHEN dear >= 5 THEN dear
                WHEN rest + CAST(CAST(quantity AS DECIMAL(38,6)) * 5 AS DECIMAL(20,4)) * -rate < 0 THEN 5
            END,
            floored)
        WHEN quantity < 0 AND floored > 0 THEN CASE
            WHEN dear >= 5 THEN least(dear, floored)
            WHEN cheap >= 5 THEN least(5, floored)
            WHEN cheap >= 0 THEN least(cheap, floored)
        END
    END AS DECIMAL(18,6)) AS trigger_price,
    as_of
FROM (
    SELECT
        *,
        CASE
            WHEN quantity > 0 THEN decimal_div(-rest_per_share, slope, 6)
            ELSE least(decimal_div(rest_per_share, 1.30 + rate, 6), decimal_div(rest_per_share - 5, 1 + rate, 6))
        END AS dear,
        CASE WHEN quantity < 0
            THEN least(decimal_div(rest_per_share, 2 + rate, 6), decimal_div(rest_per_share - 2.5, 1 + rate, 6))
        END AS cheap,
        CASE WHEN floor_per_share > 0 THEN floor_per_share END AS floored
    FROM (
        SELECT
            *,
            0.75 - rate AS slope,
            decimal_div(rest, abs(quantity), 10) AS rest_per_share,
            decimal_div(floor_rest, -quantity, 6) AS floor_per_share
        FROM (
            SELECT
                l.*,
                a.equity - l.market_value - (a.charge + a.add_on - l.charge - l.add_on) - (a.beta_add_on - CASE
                    WHEN a.beta_add_on > 0 THEN CAST(abs(l.market_value) * 0.05 AS DECIMAL(20,4)) ELSE 0 END) AS rest,
                CASE WHEN l.add_on > 0 THEN 0.10 ELSE 0 END + CASE WHEN a.beta_add_on > 0 THEN 0.05 ELSE 0 END AS rate,
                CASE WHEN a.shorts > 0 OR a.cash < 0 THEN a.equity - l.market_value - 2000 END AS floor_rest
            FROM sized l JOIN accounts a ON a.account_id = l.account_id
        )
    )
);

-- The price of one symbol alone at which its account's excess becomes zero; NULL where no price does, or none that
-- DECIMAL(18,6) can hold.
-- Above `cheap_below` excess is rest + side * shares * price - requirement(price), on each side of it a line for longs and
-- the lower of two for shorts; where it jumps over zero at `cheap_below`, that is the price.
SELECT
    account_id,
    symbol,
    TRY_CAST(CASE
        -- excess is the lower of two: by the legs' charges, and by minimum equity
        WHEN quantity > 0 AND (slope > 0 OR rest >= 0) THEN greatest(
            CASE
                WHEN dear >= cheap_below THEN dear
                WHEN rest + CAST(CAST(quantity AS DECIMAL(38,6)) * cheap_below AS DECIMAL(20,4)) * (1 - cheap_long_rate) < 0
                    THEN cheap_below
                ELSE cheap
            END,
            floored)
        WHEN quantity < 0 AND floored > 0 THEN CASE
            WHEN dear >= cheap_below THEN least(dear, floored)
            WHEN cheap >= cheap_below THEN least(cheap_below, floored)
            WHEN cheap >= 0 THEN least(cheap, floored)
        END
    END AS DECIMAL(18,6)) AS trigger_price
FROM (
    SELECT
        t.account_id,
        t.symbol,
        t.quantity,
        t.rest,
        1 - r.long_maintenance - t.rate AS slope,
        r.cheap_below,
        CASE WHEN r.cheap_long_maintenance > 0 THEN r.cheap_long_maintenance ELSE r.long_maintenance END + t.rate
            AS cheap_long_rate,
        CASE
            WHEN t.quantity > 0 THEN decimal_div(-decimal_div(t.rest, t.quantity, 10), 1 - r.long_maintenance - t.rate, 6)
            ELSE least(
                decimal_div(decimal_div(t.rest, -t.quantity, 10), 1 + r.short_maintenance + t.rate, 6),
                decimal_div(decimal_div(t.rest, -t.quantity, 10) - r.short_per_share, 1 + t.rate, 6))
        END AS dear,
        CASE
            WHEN t.quantity < 0 THEN least(
                decimal_div(decimal_div(t.rest, -t.quantity, 10), 1 + r.cheap_short_maintenance + t.rate, 6),
                decimal_div(decimal_div(t.rest, -t.quantity, 10) - r.cheap_short_per_share, 1 + t.rate, 6))
            -- only where a house asks for less than all of what a cheap share is worth
            WHEN t.rest < 0 AND 1 - t.rate > CASE WHEN r.cheap_long_maintenance > 0 THEN r.cheap_long_maintenance ELSE r.long_maintenance END
                THEN decimal_div(-decimal_div(t.rest, t.quantity, 10), 1 - t.rate
                    - CASE WHEN r.cheap_long_maintenance > 0 THEN r.cheap_long_maintenance ELSE r.long_maintenance END, 6)
        END AS cheap,
        CASE WHEN decimal_div(t.floor_rest, -t.quantity, 6) > 0 THEN decimal_div(t.floor_rest, -t.quantity, 6) END AS floored
    FROM trigger_terms t
    CROSS JOIN rules r
)

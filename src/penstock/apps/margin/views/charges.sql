-- Maintenance of each leg by itself (FINRA 4210(c)), before what the house adds for concentration.
SELECT
    l.*,
    CASE
        WHEN l.quantity > 0 AND l.price < r.cheap_below AND r.cheap_long_maintenance > 0
            THEN CAST(l.market_value * r.cheap_long_maintenance AS DECIMAL(20,4))
        WHEN l.quantity > 0
            THEN CAST(l.market_value * r.long_maintenance AS DECIMAL(20,4))
        WHEN l.price >= r.cheap_below
            THEN greatest(
                CAST(-l.market_value * r.short_maintenance AS DECIMAL(20,4)),
                CAST(CAST(-l.quantity AS DECIMAL(38,6)) * r.short_per_share AS DECIMAL(20,4))
            )
        ELSE greatest(
            CAST(-l.market_value * r.cheap_short_maintenance AS DECIMAL(20,4)),
            CAST(CAST(-l.quantity AS DECIMAL(38,6)) * r.cheap_short_per_share AS DECIMAL(20,4))
        )
    END AS charge
FROM {prefix}legs l
CROSS JOIN rules r

-- Symbols whose price is older than the limit, counted in time at which the market was open.
SELECT DISTINCT p.symbol
FROM prices p
JOIN market_calendar c ON p.timestamp >= c.opens_at AND p.timestamp < c.next_opens_at
CROSS JOIN market_now n
CROSS JOIN rules r
WHERE n.now_us - (c.open_before_us + epoch_us(least(p.timestamp, c.closes_at)) - epoch_us(c.opens_at))
    > CAST(r.stale_after_minutes * 60000000 AS BIGINT)

-- Each session with the time that the market was open before it, and when the next one begins.
SELECT
    opens_at,
    closes_at,
    lead(opens_at, 1, TIMESTAMP '9999-12-31') OVER (ORDER BY opens_at) AS next_opens_at,
    coalesce(
        sum(epoch_us(closes_at) - epoch_us(opens_at))
            OVER (ORDER BY opens_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING),
        0
    )::BIGINT AS open_before_us
FROM market_hours
